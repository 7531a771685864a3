"""`tomonode demo-train` in small: from labels to a promoted model and back, and that nothing stays behind."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
from pydicom import dcmread

from gmic.config import GMIC3DConfig
from tests.support.command import all_gone, assert_one_line, environment, started, tomonode
from tests.support.versions import weights_file

# As the demonstration weights, in the form of the network; thinner, and drawn at random: it is quick.
THIN = GMIC3DConfig(
    binning=8,
    patch_size=48,
    num_patches=2,
    top_t_fraction=0.05,
    slice_margin=2,
    stem_channels=8,
    stage_channels=(8, 8, 16),
    stage_strides=(1, 2, 2),
    attention_channels=8,
    local_channels=(8, 8, 16, 16),
)
FIRST = "gmic3d-phantom-coarse"


def test_a_model_is_trained_promoted_and_rolled_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = weights_file(tmp_path, 1, "thin", THIN)
    with started(
        *("demo-train", "--out", out, "--patients", "6", "--epochs", "1", "--weights", first),
        env=environment(tmp_path),
        output=tmp_path / "said",
    ) as demo:
        demo.wait_for("3. pathology arrives", 300)
        processes = demo.descendants()
        code = demo.process.wait(420)
        said = demo.output()

    assert code == 0, said
    assert len(processes) >= 7
    assert all_gone(processes)
    summary = json.loads((out / "summary.json").read_text())
    candidate = summary["training"]["model"]
    assert candidate.startswith("fine-tune-")
    assert summary["studies"] == 7
    assert (summary["labels"]["matched"], summary["labels"]["unmatched"]) == (6, 1)
    counts = summary["dataset"]["counts"]
    assert {name: part["patients"] for name, part in counts["splits"].items()} == {
        "train": 4, "valid": 1, "test": 1,
    }  # fmt: skip
    assert counts["excluded"] == {"window-open": 4}
    assert len(summary["training"]["epochs"]) == 1
    assert summary["evaluation"]["against"] == FIRST
    assert summary["evaluation"]["breasts"] == 2
    assert_promoted_by_override(summary, said)
    assert_reports_name([candidate, FIRST], summary, out / "pacs")
    assert "Research use only" in (out / "evaluation.html").read_text()
    states = tomonode("model", "list", "--json", env=environment(out / "home"))
    assert {row["version"]: row["state"] for row in json.loads(states.stdout)} == {
        candidate: "RETIRED",
        FIRST: "ACTIVE",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_a_command_runs_it_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    first = weights_file(tmp_path, 1, "thin", THIN)
    with started(
        *("demo-train", "--out", tmp_path / "out", "--patients", "6", "--weights", first),
        env=environment(tmp_path),
        output=tmp_path / "said",
    ) as demo:
        demo.wait_for("tomonode model promote", 300)
        processes = demo.descendants()

        code = demo.end(number)

    assert code == (-number if number is signal.SIGKILL else 130)
    assert len(processes) >= 8
    assert all_gone(processes)
    assert "Traceback" not in (tmp_path / "said").read_text()


def assert_promoted_by_override(summary: dict, said: str) -> None:
    """One malignant breast in the test split is too few for the rule, and the demonstration says so."""
    assert summary["promotion"]["by"] == "override"
    assert "TOMONODE_PROMOTION_MIN_MALIGNANT" in summary["promotion"]["refusal"]
    assert summary["promotion"]["refusal"] in said
    assert "promoted by an override" in said


def assert_reports_name(versions: list[str], summary: dict, pacs: Path) -> None:
    """Each of the two new studies has one report at the PACS, which names its version and not the other."""
    assert [report["model_version"] for report in summary["reports"]] == versions
    for report, other in zip(summary["reports"], reversed(versions), strict=True):
        found = dcmread(pacs / report["file"])
        assert found.StudyInstanceUID == report["study_instance_uid"]
        text = str(found)
        assert f"'{report['model_version']}'" in text
        assert f"'{other}'" not in text


def test_other_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    fine = weights_file(tmp_path, 1, "fine", dataclasses.replace(THIN, binning=1))

    for path, words in ((missing, "no demonstration weights"), (fine, "average 1 pixels")):
        done = tomonode(
            "demo-train",
            "--weights",
            path,
            "--out",
            tmp_path / "out",
            env=environment(tmp_path / "x"),
        )
        assert_one_line(done, 2, words)
