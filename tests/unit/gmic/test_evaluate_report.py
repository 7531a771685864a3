from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from gmic.errors import DataError
from gmic.evaluate import charts, report
from gmic.evaluate.curves import roc_band
from gmic.evaluate.froc import FrocCurve
from gmic.evaluate.scores import ImageScore

RESAMPLES = 50


def scores(skill: float, seed: int = 0, labels: bool = True) -> list[ImageScore]:
    """Thirty patients, both breasts, two views."""
    truth, noise = np.random.default_rng(1), np.random.default_rng(seed)
    rows = []
    for patient in range(30):
        for side in "LR":
            marks = (int(truth.random() < 0.3), int(truth.random() < 0.3)) if labels else (0, 0)
            for view in ("CC", "MLO"):
                values = 1 / (1 + np.exp(-skill * np.array(marks) - noise.normal(size=2)))
                breast = f"p{patient}-{side}"
                pair = (float(values[0]), float(values[1]))
                rows.append(ImageScore(f"{breast}-{view}", breast, f"p{patient}", marks, pair))
    return rows


class Page(HTMLParser):
    """Collects what a page loads, its texts and the tags left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def evaluation() -> report.Evaluation:
    models = {"3D <GMIC>": scores(3.0), "2D & all": scores(1.0, seed=5)}
    return report.evaluate(models, resamples=RESAMPLES)


def test_figures_of_both_levels(evaluation: report.Evaluation) -> None:
    rows = scores(3.0)
    estimate = evaluation.models[0].auc[report.Cell("image", "malignant")]
    assert estimate is not None
    expected = roc_auc_score([s.labels[1] for s in rows], [s.scores[1] for s in rows])
    assert estimate.value == pytest.approx(expected)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    means = [(one.scores[1] + other.scores[1]) / 2 for one, other in pairs]
    breast = evaluation.models[0].auc[report.Cell("breast", "malignant")]
    assert breast is not None
    assert breast.value == pytest.approx(roc_auc_score([one.labels[1] for one, _ in pairs], means))
    comparison = evaluation.comparisons[report.Cell("breast", "malignant")]
    assert comparison is not None
    assert comparison.difference.low > 0


def test_the_order_of_a_models_rows_does_not_matter() -> None:
    forwards = report.evaluate({"a": scores(1.0), "b": scores(2.0)}, resamples=RESAMPLES)
    backwards = report.evaluate({"a": scores(1.0)[::-1], "b": scores(2.0)}, resamples=RESAMPLES)
    assert forwards.comparisons == backwards.comparisons


def test_the_worst_cases() -> None:
    rows = scores(1.0)
    negatives, positives = report.worst(rows, "malignant", 3)
    assert [s.scores[1] for s in negatives] == sorted(
        (s.scores[1] for s in rows if not s.labels[1]), reverse=True
    )[:3]
    assert [s.scores[1] for s in positives] == sorted(s.scores[1] for s in rows if s.labels[1])[:3]


def test_the_files(tmp_path: Path, evaluation: report.Evaluation) -> None:
    shown: list[str] = []

    def picture_of(name: str) -> Image.Image | None:
        shown.append(name)
        return Image.new("RGB", (8, 8)) if name.endswith("CC") else None

    curve = FrocCurve(np.array([0.0, 1.0]), np.array([0.0, 0.5]), 4, 2)
    extras = report.Extras(
        title="A <b>title",
        about=("On phantoms.",),
        tables=(report.Table("Segmentation", ("DSC",), (("0.5",),), "a note"),),
        charts=(("Detection", charts.froc_chart([("model", curve)])),),
        gallery=(("a caption", Image.new("RGB", (8, 8))),),
        picture_of=picture_of,
    )
    as_json, as_page = report.write_report(tmp_path / "new" / "folder", evaluation, extras)
    text = as_page.read_text()
    page = Page(text)
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"url\(|@import|<script", text)
    assert "Research use only, not for clinical use" in page.texts
    assert "A <b>title" in page.texts
    assert {"3D <GMIC>", "2D & all", "a note", "On phantoms."} <= set(page.texts)
    svgs = [base64.b64decode(s.split(",")[1]) for s in page.sources if "svg+xml" in s]
    assert len(svgs) == 4
    assert all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in svgs)
    assert len(shown) == 2 * 2 * 2 * report.WORST

    values = json.loads(as_json.read_text())
    assert values["notice"] == "Research use only, not for clinical use."
    assert (values["images"], values["breasts"], values["patients"]) == (120, 60, 30)
    rows = values["models"]["3D <GMIC>"]
    assert [(row["level"], row["class"]) for row in rows] == [
        ("breast", "malignant"),
        ("breast", "benign"),
        ("image", "malignant"),
        ("image", "benign"),
    ]
    assert rows[0]["auc"]["low"] <= rows[0]["auc"]["value"] <= rows[0]["auc"]["high"]
    assert rows[0]["operating_points"][0]["sensitivity"]["value"] >= 0.9
    assert rows[0]["operating_points"][1]["specificity"]["value"] >= 0.9
    assert values["comparisons"][0]["paired"]["p_value"] <= 1
    assert values["tables"][0]["rows"] == [["0.5"]]


def test_the_same_scores_give_the_same_files(tmp_path: Path) -> None:
    for name in "ab":
        evaluation = report.evaluate({"m": scores(1.0)}, resamples=RESAMPLES)
        report.write_report(tmp_path / name, evaluation)
    for file in ("report.json", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_one_class_only_and_scores_that_are_no_shares(tmp_path: Path) -> None:
    healthy = scores(1.0, labels=False)
    rows = [
        ImageScore(s.image_id, s.breast_id, s.patient_id, s.labels, (5.0, -3.0)) for s in healthy
    ]
    evaluation = report.evaluate({"baseline": rows}, resamples=RESAMPLES)
    as_json, as_page = report.write_report(tmp_path, evaluation)
    for row in json.loads(as_json.read_text())["models"]["baseline"]:
        assert row["auc"] is None
        assert row["calibration"] is None
        assert row["operating_points"] == []
        assert row["lowest_positives"] == []
    assert "calibration does not apply" in as_page.read_text()


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="3 models"):
        report.evaluate(dict.fromkeys("abc", scores(1.0)))
    with pytest.raises(DataError, match="a and b did not read the same images"):
        report.evaluate({"a": scores(1.0), "b": scores(1.0)[:-1]})
    with pytest.raises(DataError, match="is there twice"):
        report.evaluate({"a": scores(1.0) + scores(1.0)[:1]})


def test_the_band_holds_the_curve_and_widens_with_fewer_patients() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(int)
    values = rng.normal(size=400) + labels
    wide, narrow = roc_band(labels[:60], values[:60]), roc_band(labels, values)
    assert wide is not None
    assert narrow is not None
    for band in (wide, narrow):
        assert (band.sensitivity[0] >= 0, band.sensitivity[-1]) == (True, 1)
        inside = (band.low <= band.sensitivity + 1e-9) & (band.sensitivity <= band.high + 1e-9)
        assert inside.mean() > 0.95
    assert (wide.high - wide.low).mean() > 1.5 * (narrow.high - narrow.low).mean()
    area = np.trapezoid(narrow.sensitivity, narrow.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(labels, values), abs=0.005)
    assert roc_band(np.zeros(3, int), np.arange(3.0)) is None
