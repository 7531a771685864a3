"""What the demonstration says of a received SEG beside the phantom's truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_io import seg, write
from dicom_io.findings import ImageFindings, Label, Segment
from tests.support.sources import COLUMNS, ROWS, make_run, source, tomosynthesis
from workers.demo_truth import body, breasts, dice
from workers.readback import SegmentationRead

LESION = {
    "label": "malignant",
    "center_zyx": [3.0, 6.0, 5.0],
    "radii_zyx": [1.5, 4.0, 3.0],
}
ENTRY = {"frames": 6, "rows": ROWS, "cols": COLUMNS, "lesions": [LESION]}
BODY = body(LESION, 3, (ROWS, COLUMNS))
HALF = BODY & (np.arange(ROWS) < 6)[:, None]
AWAY = np.zeros_like(BODY)
AWAY[0, 0] = True


def written(folder: Path, label: Label, masks: Mapping[int, NDArray[np.bool_]]) -> SegmentationRead:
    """A real SEG with these masks by frame (from 1), as the demonstration finds it in the PACS's folder."""
    ref = source(tomosynthesis())
    stored = {frame - 1: mask for frame, mask in masks.items()}
    findings = ImageFindings(
        ref, {"benign": 0.2, "malignant": 0.7}, (Segment(label, stored, 0.7),), ()
    )
    dataset = seg.build_seg(findings, make_run())
    assert dataset is not None
    path = folder / "seg.dcm"
    path.write_bytes(write.to_bytes(dataset))
    return SegmentationRead(
        path, str(dataset.SOPInstanceUID), ref.sop_instance_uid, {label: tuple(masks)}
    )


def test_the_body_is_an_ellipsoid_about_its_centre() -> None:
    assert BODY[[6, 2, 10, 6, 6], [5, 5, 5, 2, 8]].all()  # the centre and the ends of both axes
    assert not BODY[[1, 2], [5, 6]].any()
    assert body(LESION, 4, (ROWS, COLUMNS)).sum() < BODY.sum()
    assert not body(LESION, 5, (ROWS, COLUMNS)).any()


WHOLE = {n: body(LESION, n, (ROWS, COLUMNS)) for n in (2, 3, 4)}
VOXELS = sum(int(mask.sum()) for mask in WHOLE.values())


@pytest.mark.parametrize(
    ("label", "masks", "expected"),
    [
        ("malignant", WHOLE, 1.0),
        ("malignant", {3: HALF}, 2 * HALF.sum() / (HALF.sum() + VOXELS)),
        ("malignant", {3: AWAY}, 0.0),
        ("malignant", {6: BODY}, 0.0),  # the right place, on a frame without the lesion
        ("benign", WHOLE, 0.0),
    ],
)
def test_a_segment_is_held_against_the_lesion_of_its_label(
    tmp_path: Path, label: Label, masks: dict[int, NDArray[np.bool_]], expected: float
) -> None:
    assert dice(written(tmp_path, label, masks), ENTRY) == pytest.approx(expected)


def test_without_a_segmentation_it_is_0_and_without_a_lesion_nothing_is_asked() -> None:
    assert dice(None, ENTRY) == 0
    assert dice(None, {**ENTRY, "lesions": []}) is None


def test_a_breasts_score_is_the_mean_over_its_views() -> None:
    def row(view: str, malignant: float, lesion: str | None) -> dict[str, Any]:
        return {"view": view, "malignant": malignant, "benign": 0.1, "lesion": lesion}

    found = breasts(
        [row("L-CC", 0.9, "malignant"), row("L-MLO", 0.5, "none"), row("R-CC", 0.1, None)]
    )
    assert found["L"] == {"malignant": 0.7, "benign": 0.1, "lesion": "malignant"}
    assert found["R"]["lesion"] is None
