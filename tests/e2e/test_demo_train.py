"""`tomonode demo-train` in small: from labels to a promoted model and back, and that nothing stays behind."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import json
import signal
import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from gmic.config import GMIC3DConfig
from tests.support.command import COMMAND, all_gone, assert_one_line, environment, started, tomonode
from tests.support.node_process import free_port
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
CRON_TRAIN = Path(__file__).parents[2] / "docs" / "cron-train.sh"


@dataclass(frozen=True)
class Demonstrated:
    """A demonstration that ended."""

    out: Path
    code: int
    said: str
    processes: list[psutil.Process]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Demonstrated:
    """A small one, which both tests below look at."""
    folder = tmp_path_factory.mktemp("demo-train")
    out, first = folder / "out", weights_file(folder, 1, "thin", THIN)
    with started(
        *("demo-train", "--out", out, "--patients", "6", "--epochs", "1", "--weights", first),
        env=environment(folder),
        output=folder / "said",
    ) as demo:
        demo.wait_for("3. pathology arrives", 300)
        processes = demo.descendants()
        code = demo.process.wait(420)
        return Demonstrated(out, code, demo.output(), processes)


def test_a_model_is_trained_promoted_and_rolled_back(demonstrated: Demonstrated) -> None:
    out, said = demonstrated.out, demonstrated.said
    assert demonstrated.code == 0, said
    assert len(demonstrated.processes) >= 7
    assert all_gone(demonstrated.processes)
    summary = demonstrated.summary
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


def test_cron_freezes_trains_and_mails_a_report_and_promotes_nothing(
    demonstrated: Demonstrated, tmp_path: Path
) -> None:
    """The script of the documentation, with the node's own commands; only the mail system is put in its place."""
    home = demonstrated.out / "home"
    ports = {name: str(free_port()) for name in ("LISTEN_PORT", "WEB_PORT")}
    env = environment(home, **ports)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("tomonode", f'exec {" ".join(COMMAND)} "$@"'),
        ("sendmail", f'echo "$@" > {tmp_path}/sent; cat > {tmp_path}/mail'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    env["PATH"] = f"{programs}:{env['PATH']}"
    quick = [f"--set={name}" for name in ("epochs=1", "slice_step=3", "metric=mean")]
    command = [str(CRON_TRAIN), "reader@hospital.example", "1", *quick]

    def cron() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=400, check=False
        )

    assert cron().returncode == 0, "not due: every exam was labelled before the last training"
    assert not (tmp_path / "mail").exists()

    report = demonstrated.summary["reports"][0]
    day = date.fromisoformat(dcmread(demonstrated.out / "pacs" / report["file"]).StudyDate)
    new = report["study_instance_uid"]
    for side, finding in (("L", "malignant"), ("R", "benign")):
        labelled = tomonode("label", "set", new, side, finding, day.isoformat(), env=env)
        assert labelled.returncode == 0, labelled.stderr
    with started("up", env=env, output=tmp_path / "up") as node:
        node.wait_for("node is up", 60)
        done = cron()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sent").read_text().split() == ["-t"]
    message = email.message_from_bytes(
        (tmp_path / "mail").read_bytes(), policy=email.policy.default
    )
    assert message["To"] == "reader@hospital.example"
    assert "SUCCEEDED" in message["Subject"]
    body = message.get_body()
    assert body is not None
    for words in ("Nothing was promoted", "Research use only", "fine-tune-"):
        assert words in body.get_content()
    (page,) = message.iter_attachments()
    assert "Research use only" in page.get_content()
    states = json.loads(tomonode("model", "list", "--json", env=env).stdout)
    assert [row["version"] for row in states if row["state"] == "ACTIVE"] == [FIRST]
    assert [row["state"] for row in states].count("CANDIDATE") == 1


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
