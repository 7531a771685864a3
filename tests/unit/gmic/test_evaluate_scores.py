from __future__ import annotations

from pathlib import Path

import pytest

from gmic.errors import DataError
from gmic.evaluate.scores import (
    COLUMNS,
    ImageScore,
    average,
    by_breast,
    columns_of,
    read_scores,
    write_scores,
)

HEADER = ",".join(COLUMNS)


def score(image: str, breast: str, values: tuple[float, float], **other: object) -> ImageScore:
    fields = {"patient_id": breast.split("-")[0], "labels": (0, 1), **other}
    return ImageScore(image, breast, scores=values, **fields)  # type: ignore[arg-type]


def table(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    rows = [score("a,1", "p-L", (0.1 + 0.2, 1e-17)), score('b"2', "q-R", (0.0, 1.0), labels=(1, 0))]
    write_scores(tmp_path / "t.csv", rows)
    assert read_scores(tmp_path / "t.csv") == rows


def test_columns_may_stand_in_any_order_and_others_are_ignored(tmp_path: Path) -> None:
    header = ",".join([*reversed(COLUMNS), "remark"])
    path = table(tmp_path, "0.7,0.2,1,0,p,p-L,i,seen twice", header=header)
    assert read_scores(path) == [score("i", "p-L", (0.2, 0.7))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("i,b,p,0,1,0.5,x", r"line 3: malignant_score is 'x'; give a number"),
        ("i,b,p,0,1,nan,0.5", r"line 3: benign_score is 'nan'; give a finite number"),
        ("i,b,p,0,1,inf,0.5", r"line 3: benign_score is 'inf'"),
        ("i,b,p,0,1,0.5", r"line 3: malignant_score is ''"),
        ("i,b,p,2,1,0.5,0.5", r"line 3: benign_label is '2'; give 0 or 1"),
        ("i,b,,0,1,0.5,0.5", r"line 3: patient_id is empty"),
        ("ok,c,p,0,1,0.5,0.5", r"image 'ok' is there twice"),
        ("i,a,q,0,1,0.5,0.5", r"breast 'a' belongs to patients 'p' and 'q'"),
        ("i,a,p,1,1,0.5,0.5", r"breast 'a' has labels \(0, 1\) in image 'ok' and \(1, 1\) in 'i'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_scores(table(tmp_path, "ok,a,p,0,1,0.5,0.5", row))


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: .*\(and 2 more\)$"):
        read_scores(table(tmp_path, *["i,b,p,0,1,0.5,x"] * 3))


def test_a_missing_column_an_empty_table_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'patient_id' is missing"):
        read_scores(table(tmp_path, header=HEADER.replace("patient_id", "patient")))
    with pytest.raises(DataError, match="no row"):
        read_scores(table(tmp_path))
    path = tmp_path / "b.csv"
    path.write_bytes(HEADER.encode() + b"\n\xff\xfe,,,\n")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_scores(path)


def test_a_nul_byte_is_refused_even_in_a_column_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_scores(path, [score("1", "p-L", (0.2, 0.4)), score("2", "p-L", (0.4, 0.8))])
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{head},note", f"{rows[0]},fine", f"{rows[1]},a\0b"]) + "\n")
    with pytest.raises(DataError, match="line 3 holds a NUL byte"):
        read_scores(path)


def test_a_breast_is_the_mean_of_its_views() -> None:
    rows = [
        score("1", "p-L", (0.2, 0.4)),
        score("2", "p-R", (0.5, 0.5), labels=(0, 0)),
        score("3", "p-L", (0.4, 0.8)),
    ]
    left, right = by_breast(rows)
    assert (left.image_id, left.breast_id, left.patient_id, left.labels) == (
        "p-L",
        "p-L",
        "p",
        (0, 1),
    )
    assert left.scores == pytest.approx((0.3, 0.6))
    assert right.scores == (0.5, 0.5)


def test_a_breast_is_positive_when_one_image_is_where_that_is_allowed() -> None:
    rows = [score("1", "b", (0.0, 0.0), labels=(1, 0)), score("2", "b", (0.0, 0.0), labels=(0, 1))]
    with pytest.raises(DataError, match="make them agree"):
        by_breast(rows)
    assert by_breast(rows, breasts_agree=False)[0].labels == (1, 1)


def test_modalities_are_averaged_breast_by_breast() -> None:
    dbt = by_breast([score("d1", "p-L", (0.2, 0.4)), score("d2", "p-L", (0.4, 0.8))])
    ffdm = by_breast([score("f1", "p-L", (0.5, 0.2)), score("f2", "q-L", (0.5, 0.2))])
    with pytest.raises(DataError, match="'q-L' is in 1 of 2 tables"):
        average([dbt, ffdm])
    (breast,) = average([dbt, ffdm], common_only=True)
    assert breast.scores == pytest.approx((0.4, 0.4))
    with pytest.raises(DataError, match="different labels"):
        average([dbt, [score("p-L", "p-L", (0, 0), labels=(1, 1))]])
    with pytest.raises(DataError, match="at least one"):
        average([])


def test_columns_of_one_class() -> None:
    labels, scores, patients = columns_of([score("1", "p-L", (0.2, 0.4), labels=(1, 0))], 1)
    assert (labels.tolist(), scores.tolist(), patients.tolist()) == ([0], [0.4], ["p"])
