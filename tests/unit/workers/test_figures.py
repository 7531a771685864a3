"""An evaluation's figures: against `gmic.evaluate` and scikit-learn, and what leaves a trace when it goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from gmic.evaluate import roc
from node.learning_models import DatasetItem
from workers.figures import Measured, Split, measure
from workers.located import Located
from workers.scoring import Failed, Scores

VIEWS = ("CC", "MLO")


def _items(patients: int, split: str) -> list[DatasetItem]:
    """Two views of one breast each; every third breast is malignant."""
    return [
        DatasetItem(
            sop_uid=f"{split}.{n}.{view}", study_uid=f"1.2.{n}", patient=f"{split}-{n}", laterality="L",
            view=view, split=split, benign=n % 4 == 0, malignant=n % 3 == 0,
            strata={"manufacturer": "ONE" if n % 2 else "TWO", "thickness_mm": 20 + 5 * n, "age": "50-59"},
        )
        for n in range(patients)
        for view in VIEWS
    ]  # fmt: skip


def _split(items: list[DatasetItem], versions: dict[str, float], seed: int = 1) -> Split:
    """Scores that know the malignant ones the better the higher a version's number is."""
    rng = np.random.default_rng(seed)
    scores: dict[str, dict[str, Scores]] = {}
    for version, skill in versions.items():
        noise = rng.uniform(0, 1, len(items))
        scores[version] = {
            item.sop_uid: (0.5, float(np.clip(skill * item.malignant + (1 - skill) * n, 0, 1)))
            for item, n in zip(items, noise, strict=True)
        }
    patients = {item.patient: str(n) for n, item in enumerate(items)}
    return Split(items, scores, patients)


ABOUT = {"dataset": "d1", "lines": ["Test split of data set d1."]}
TEST, VALID = _items(30, "test"), _items(20, "valid")
SKILL = {"new": 0.6, "old": 0.1}
FAILED = [Failed("1.9", "new", "too dark"), Failed("1.9", "old", "too dark")]


@pytest.fixture(scope="module")
def both() -> Measured:
    return measure(["new", "old"], _split(TEST, SKILL), _split(VALID, SKILL), FAILED, ABOUT)


def test_auc_and_paired_difference_are_those_of_the_scores(both: Measured) -> None:
    split = _split(TEST, SKILL)
    means = {
        version: [
            np.mean([split.scores[version][f"test.{n}.{view}"][1] for view in VIEWS])
            for n in range(30)
        ]
        for version in SKILL
    }
    labels = [int(n % 3 == 0) for n in range(30)]
    found = both.summary["breast"]["malignant"]
    assert found["positives"] == 10
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(labels, means["new"]))
    assert found["against"]["value"] == pytest.approx(roc_auc_score(labels, means["old"]))
    wanted = roc.compare(labels, means["new"], means["old"], [str(n) for n in range(30)])
    assert wanted is not None
    assert found["difference"]["value"] == pytest.approx(wanted.difference.value)
    assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]
    images = both.summary["image"]["malignant"]
    assert (images["positives"], images["negatives"]) == (20, 40)


def test_thresholds_are_chosen_on_validation(both: Measured) -> None:
    (point,) = (
        p
        for p in both.summary["operating_points"]
        if (p["class"], p["version"], p["wanted"]) == ("malignant", "new", "sensitivity 0.9")
    )
    valid = _split(VALID, SKILL).scores["new"]
    positives = sorted(
        np.mean([valid[f"valid.{n}.{view}"][1] for view in VIEWS]) for n in range(0, 20, 3)
    )
    assert point["threshold"] == pytest.approx(positives[0]), "7 positives: 90 % are all of them"
    assert 0 <= point["specificity"]["low"] <= point["specificity"]["high"] <= 1


def test_strata_add_up(both: Measured) -> None:
    strata = both.summary["strata"]
    for name, wanted in {
        "manufacturer": 30,
        "view": 60,
        "thickness": 60,
        "age": 30,
        "site": 30,
    }.items():
        rows = [s for s in strata if s["stratum"] == name and s["class"] == "malignant"]
        assert sum(row["positives"] + row["negatives"] for row in rows) == wanted, name
    assert {s["value"] for s in strata if s["stratum"] == "site"} == {"not said"}
    bands = {s["value"] for s in strata if s["stratum"] == "thickness"}
    assert bands == {"below 30 mm", "30 to below 50 mm", "50 to below 70 mm", "70 mm and more"}


def test_the_summary_is_json_and_the_page_stands_alone(both: Measured) -> None:
    assert json.loads(json.dumps(both.summary, allow_nan=False)) == both.summary
    assert "Research use only, not for clinical use" in both.page
    assert "new against old" in both.page
    assert "too dark" in both.page
    assert "Operating points, chosen on validation" in both.page
    for outside in ("<script", "http://", "https://"):
        assert outside not in both.page.replace("http://www.w3.org", "")


def test_an_image_that_one_version_alone_cannot_read_is_held_against_it() -> None:
    split = _split(TEST, SKILL)
    for failed, wanted in ((FAILED, 0), (FAILED[:1], 1), (FAILED[1:], 0), ([], 0)):
        found = measure(["new", "old"], split, Split([], split.scores, {}), failed, ABOUT)
        assert found.summary["failed_alone"] == wanted


def test_one_class_has_no_area_and_one_version_no_difference() -> None:
    healthy = [item for item in TEST if not item.malignant]
    split = _split(healthy, {"new": 0.6})
    found = measure(["new"], split, _split(VALID, {"new": 0.6}), [], ABOUT).summary
    assert found["against"] is None
    malignant, benign = found["breast"]["malignant"], found["breast"]["benign"]
    assert (malignant["auc"], malignant["positives"]) == (None, 0)
    assert benign["auc"]["value"] == pytest.approx(0.5)
    assert benign["difference"] is None
    assert all(point["class"] == "benign" for point in found["operating_points"])


def test_images_with_lesions_are_shown_with_the_candidates_saliency() -> None:
    split = _split(TEST, {"new": 0.6})
    shown = (("L CC, drawn: malignant", "test.0.CC"), ("gone", "test.3.CC"))
    asked: list[str] = []

    def picture_of(uid: str) -> Image.Image | None:
        asked.append(uid)
        return Image.new("RGB", (8, 8)) if uid == "test.0.CC" else None

    located = Located(gallery=shown)
    page = measure(["new"], split, split, [], ABOUT, located, picture_of).page
    gallery = page[page.index("<h2>Saliency</h2>") : page.index("<h2>Worst cases</h2>")]
    assert gallery.count("data:image/webp") == 1
    assert "L CC, drawn: malignant" in gallery
    assert "gone" not in gallery
    assert {"test.0.CC", "test.3.CC"} <= set(asked)
