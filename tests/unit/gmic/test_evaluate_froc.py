from __future__ import annotations

from pathlib import Path

import pytest

from gmic.errors import DataError
from gmic.evaluate.froc import (
    PREDICTION_COLUMNS,
    Prediction,
    TrueBox,
    Volume,
    finds,
    froc,
    read_predictions,
    write_predictions,
)

A, B, C = Volume("p", "s", "lcc"), Volume("p", "s", "lmlo"), Volume("q", "t", "rcc")


def predicted(
    volume: Volume, x: float, y: float, z: float, score: float, side: float = 20
) -> Prediction:
    """A box of 20 x 20 x 2 centred on (x, y, z)."""
    return Prediction(volume, x - side / 2, side, y - side / 2, side, z - 1, 2, score)


def lesion(volume: Volume, x: float, y: float, z: float, side: float = 40) -> TrueBox:
    return TrueBox(volume, x - side / 2, y - side / 2, side, side, z, slices=40)


@pytest.mark.parametrize(
    ("x", "y", "z", "side", "expected"),
    [
        (600, 500, 20, 40, True),  # 100 pixels, though half the diagonal is 28
        (601, 500, 20, 40, False),
        (560, 580, 20, 40, True),  # hypot(60, 80) = 100
        (711, 500, 20, 300, True),  # half the diagonal is 212.1
        (713, 500, 20, 300, False),
        (500, 500, 30, 40, True),  # a quarter of 40 slices
        (500, 500, 30.5, 40, False),
        (500, 500, 10, 40, True),
    ],
)
def test_the_reach_of_a_lesion(x: float, y: float, z: float, side: float, expected: bool) -> None:
    assert finds(predicted(A, x, y, z, 1.0), lesion(A, 500, 500, 20, side)) is expected


def test_the_benchmark_by_hand() -> None:
    """Two lesions in A, one in B, none in C."""
    truth = [lesion(A, 100, 100, 20), lesion(A, 900, 900, 20), lesion(B, 500, 500, 5)]
    guesses = [
        predicted(C, 100, 100, 20, 0.95),  # false, outside the volumes with lesions
        predicted(A, 110, 100, 20, 0.9),  # finds the first
        predicted(A, 100, 110, 22, 0.8),  # finds it again: nothing
        predicted(A, 500, 500, 20, 0.7),  # false
        predicted(B, 500, 500, 16, 0.6),  # right place, eleven slices off: false
        predicted(B, 500, 520, 9, 0.5),  # finds the third
        predicted(B, 100, 900, 9, 0.4),  # false
        predicted(A, 950, 900, 25, 0.3),  # finds the second
    ]
    result = froc(guesses[::-1], truth, [A, B, C])
    curve = result.with_lesions
    assert (curve.volumes, curve.lesions) == (2, 3)
    assert (curve.false_positives * 2).tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    assert curve.sensitivity * 3 == pytest.approx([0, 1, 1, 1, 1, 2, 2, 3])
    assert [curve.at(rate) for rate in (0, 0.5, 1, 1.25, 1.5, 4)] == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1]
    )
    assert result.mean_sensitivity == pytest.approx((2 / 3 + 1 + 1 + 1) / 4)
    everything = result.all_volumes
    assert everything.volumes == 3
    assert (everything.false_positives * 3).tolist() == [0, 1, 1, 1, 2, 3, 3, 4, 4]
    assert everything.at(1) == pytest.approx(2 / 3)
    assert result.sensitivity_all == pytest.approx(1.0)


def test_neighbouring_lesions_are_found_one_after_the_other() -> None:
    truth = [lesion(A, 100, 100, 20), lesion(A, 150, 100, 20)]
    one = froc([predicted(A, 140, 100, 20, 0.9)], truth)
    assert one.mean_sensitivity == pytest.approx(0.5)
    both = froc([predicted(A, 140, 100, 20, 0.9), predicted(A, 145, 100, 20, 0.8)], truth)
    assert both.mean_sensitivity == 1.0


def test_equal_scores_come_together() -> None:
    guesses = [predicted(A, 500, 500, 20, 0.5), predicted(A, 100, 100, 20, 0.5)]
    curves = [froc(g, [lesion(A, 100, 100, 20)]).with_lesions for g in (guesses, guesses[::-1])]
    for curve in curves:
        assert curve.false_positives.tolist() == [0, 1]
        assert curve.sensitivity.tolist() == [0, 1]


def test_without_predictions_nothing_is_found() -> None:
    result = froc([], [lesion(A, 100, 100, 20)], [A, B])
    assert (result.mean_sensitivity, result.sensitivity_all) == (0, 0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="no true box"):
        froc([predicted(A, 0, 0, 0, 1)], [])
    with pytest.raises(DataError, match="q/t/rcc is not among the volumes"):
        froc([predicted(C, 0, 0, 0, 1)], [lesion(A, 1, 1, 1)], [A])


def test_the_predictions_file(tmp_path: Path) -> None:
    guesses = [predicted(A, 110.5, 100, 20, 1 / 3), predicted(C, 1, 2, 3, 0.5)]
    path = tmp_path / "predictions.csv"
    write_predictions(path, guesses)
    first = path.read_text().splitlines()[0]
    assert first == "PatientID,StudyUID,View,X,Width,Y,Height,Z,Depth,Score"
    assert read_predictions(path) == guesses
    path.write_text(",".join(PREDICTION_COLUMNS) + "\np,s,lcc,1,2,3,4,5,6,high\n")
    with pytest.raises(DataError, match="line 2: Score is 'high'"):
        read_predictions(path)
