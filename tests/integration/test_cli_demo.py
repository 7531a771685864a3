"""`tomonode demo`: the whole journey, and that nothing stays behind, however it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.command import all_gone, assert_one_line, environment, started, tomonode


def test_a_phantom_goes_all_the_way_and_its_lesion_is_found(tmp_path: Path) -> None:
    out = tmp_path / ("deep" * 30)  # longer than the path of a Unix socket may be

    with started("demo", "--out", out, env=environment(tmp_path), output=tmp_path / "said") as demo:
        demo.wait_for("waiting for SEG and SR", 180)
        processes = demo.descendants()
        code = demo.process.wait(300)
        said = demo.output()

    assert code == 0, said
    assert all_gone(processes)
    summary = json.loads((out / "summary.json").read_text())
    images = summary["images"]
    assert [image["view"] for image in images] == ["L-CC", "L-MLO", "R-CC", "R-MLO"]
    assert [image["lesion"] for image in images] == ["malignant"] * 2 + ["none"] * 2
    for image in images:
        assert 0 <= image["malignant"] <= 1
        assert (out / "pictures" / image["picture"]).read_bytes().startswith(b"\x89PNG")
        assert image["files"][-1] in summary["received_files"]
    assert_found(summary, said)


def assert_found(summary: dict, said: str) -> None:
    """The breast with the lesion scores higher, its segmentations lie on the lesion, and every score has its caveat."""
    breasts = summary["breasts"]
    assert breasts["L"]["malignant"] > max(0.9, breasts["R"]["malignant"])
    assert [image["dice"] > 0 for image in summary["images"][:2]] == [True, True]
    assert "say nothing about patients" in summary["notice"]
    assert "say nothing about patients" in said
    assert "Research use only" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_it_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with started(
        "demo", "--out", out, "--slices", "2", env=environment(tmp_path), output=tmp_path / "said"
    ) as demo:
        demo.wait_for("sending 4 files")
        processes = demo.descendants()

        code = demo.end(number)

    assert code == (-number if number is signal.SIGKILL else 130)
    assert len(processes) >= 7
    assert all_gone(processes)
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_a_folder_without_dicom_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "note.txt").write_text("nothing")

    done = tomonode(
        "demo", "--input", tmp_path / "in", "--out", tmp_path / "out", env=environment(tmp_path)
    )

    assert_one_line(done, 1, "no DICOM file")
    assert "note.txt" in done.stdout


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()

    done = tomonode("demo", "--out", tmp_path, env=environment(tmp_path / "x"))

    assert_one_line(done, 2, str(tmp_path), "--out")
    assert (tmp_path / "home").is_dir()


def test_own_files_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    env = environment(tmp_path)
    made = tomonode(
        "phantom", tmp_path / "in", "--views", "R-CC", "--slices", "2", "--size", "700x500", env=env
    )

    done = tomonode(
        "demo", "--input", tmp_path / "in", "--out", tmp_path / "out", env=env, timeout_s=300
    )

    assert made.returncode == 0, made.stderr
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert "truth.json" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [image["view"] for image in summary["images"]] == ["R-CC"]
