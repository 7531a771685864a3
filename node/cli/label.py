"""`tomonode label`: what pathology and radiologists said, by hand or from a file; boxes and masks for evaluation."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from node import studies
from node.blobs import BlobStore
from node.cli import output
from node.cli.context import database
from node.cli.label_mask import mask
from node.config import load_settings
from node.db import now
from node.labels import boxes, store, values, views
from node.labels.importing import Report, Wishes, import_labels
from node.labels.matching import Outcome
from node.labels.rule import WINDOW_DAYS
from node.labels.values import Box
from node.learning_models import Annotation

app = typer.Typer(
    help="Labels: pathology, BI-RADS categories, boxes, masks. A correction is a new revision."
)

StudyUid = Annotated[str, typer.Argument(help="Study Instance UID, or the node's own id of it.")]
Side = Annotated[str, typer.Argument(help="L or R.", metavar="L|R")]
By = Annotated[str | None, typer.Option(help="Who says so; by default your login name.")]
Source = Annotated[str, typer.Option(help="Where it comes from, such as a report's number.")]
SopUid = Annotated[str, typer.Argument(help="SOP Instance UID of an image.")]
BoxLabel = Annotated[str, typer.Argument(help="benign or malignant.")]
Place = Annotated[
    tuple[int, int, int, int, int],
    typer.Argument(
        metavar="FRAME ROW COL HEIGHT WIDTH", help="Frame, row, column from 0; pixels as stored."
    ),
]

app.command()(mask)

_SETTLED = {Outcome.MATCHED, Outcome.UNCHANGED}


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV; docs/labels.md has its columns.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")] = False,
    by: By = None,
    source: Annotated[
        str | None, typer.Option(help="What to call the file; by default its name.")
    ] = None,
    match_days: Annotated[
        int, typer.Option(min=0, help="How far study_date may be off where it finds the study.")
    ] = Wishes.match_days,
    encoding: Annotated[
        str | None, typer.Option(help="Of the file; by default told by its bytes.")
    ] = None,
    allow_unmatched: Annotated[
        bool, typer.Option("--allow-unmatched", help="Rows without a study are no failure.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Import labels from a CSV file, with a report a row; exit code 1 if a row needs a person. What can be taken is
    taken; the same file again changes nothing."""
    wishes = Wishes(source or file.name, _who(by), dry_run, match_days, encoding)
    content = file.read_bytes()
    with database() as db:
        report = import_labels(db, content, wishes)
    if as_json:
        output.as_json(asdict(report))
    else:
        _show_report(report)
    settled = _SETTLED | ({Outcome.UNMATCHED} if allow_unmatched else set())
    if any(verdict.outcome not in settled for verdict in report.rows):
        raise typer.Exit(1)


def _show_report(report: Report) -> None:
    columns = ("row", "outcome", "study_uid", "laterality", "reason", "todo")
    output.table(
        ("row", "outcome", "study", "breast", "why", "what to do"),
        [[getattr(verdict, name) for name in columns] for verdict in report.rows],
        "the file has no rows",
    )
    output.say(f"\n{report.encoding}, columns divided by {report.delimiter}")
    if report.ignored_columns:
        output.say(f"columns not read: {', '.join(report.ignored_columns)}")
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count)
    output.say(f"{'dry run, nothing written: ' if report.dry_run else ''}{counts or 'no rows'}")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List labelled breasts, the one labelled last first, with their newest revisions."""
    with database() as db, db.reading() as session:
        rows = [asdict(row) for row in views.label_list(session, limit)]
    _print(rows, "no labels yet; `tomonode label import` brings them", as_json)


@app.command()
def imports(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List imported files, newest first."""
    with database() as db, db.reading() as session:
        rows = [asdict(row) for row in views.import_list(session, limit)]
    if not as_json:
        for row in rows:
            row["counts"] = [f"{count} {name}" for name, count in row["counts"].items() if count]
    _print(rows, "no file was imported yet", as_json)


def _print(rows: list[dict[str, Any]], none: str, as_json: bool) -> None:
    if as_json:
        output.as_json(rows)
        return
    headings = [name.replace("_", " ") for name in rows[0]] if rows else ()
    output.table(headings, [list(row.values()) for row in rows], none)


@app.command()
def show(
    study: StudyUid,
    window_days: Annotated[
        int, typer.Option(min=0, help="Days after the exam in which pathology belongs to it.")
    ] = WINDOW_DAYS,
    as_json: output.AsJson = False,
) -> None:
    """Show the labels of a study, every revision, and what each breast counts as today."""
    with database() as db, db.reading() as session:
        found = studies.find(session, study)
        labels = views.study_labels(session, found, now(session).date(), window_days)
    if as_json:
        output.as_json(asdict(labels))
        return
    for breast in labels.breasts:
        output.say(f"{breast.laterality}: {breast.counts_as} ({breast.because})")
        for name in ("pathology", "assessments"):
            rows = [asdict(row) for row in getattr(breast, name)]
            if rows:
                output.say(f"\n{name}, newest first")
                _print(rows, "", as_json=False)
        output.say()
    if labels.boxes:
        output.say("boxes")
        _print([asdict(box) for box in labels.boxes], "", as_json=False)
    if not labels.breasts:
        output.say("the study has no image of a breast")


@app.command("set")
def set_(
    study: StudyUid,
    laterality: Side,
    finding: Annotated[
        str, typer.Argument(help=f"What pathology proved: {', '.join(values.FINDINGS)}.")
    ],
    found_on: Annotated[str, typer.Argument(help="Day of the biopsy or surgery, YYYY-MM-DD.")],
    source: Source = "tomonode label set",
    note: Annotated[str | None, typer.Option(help="Free text, kept with the revision.")] = None,
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Say what pathology proved in one breast; a correction is the next revision."""
    side = values.laterality_of(laterality)
    said = values.finding_of(finding, values.day_of("found_on", found_on))
    with database() as db, db.transaction() as session:
        found, at = studies.find(session, study), now(session)
        row = store.add_pathology(
            session, found, side, **vars(said), note=note, source=source, author=_who(by), at=at
        )
    _say_written(row.revision if row else None, f"{side}: pathology {said.word}", as_json)


@app.command()
def assess(
    study: StudyUid,
    laterality: Side,
    category: Annotated[str, typer.Argument(help="BI-RADS category, 0 to 6.")],
    source: Source = "tomonode label assess",
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Say which BI-RADS category one breast was given; a correction is the next revision."""
    side, wanted = values.laterality_of(laterality), values.category_of(category)
    with database() as db, db.transaction() as session:
        found, at = studies.find(session, study), now(session)
        row = store.add_assessment(
            session, found, side, category=wanted, source=source, author=_who(by), at=at
        )
    _say_written(row.revision if row else None, f"{side}: BI-RADS {wanted}", as_json)


@app.command()
def box(
    image: SopUid,
    label: BoxLabel,
    place: Place,
    number: Annotated[
        int | None, typer.Option(help="Correct this box of the image; by default a new one.")
    ] = None,
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Draw a box around a lesion on one frame, for evaluation only; never used in training."""
    settings = load_settings()
    drawn = Box(*place)
    blobs = BlobStore.of(settings)
    with database(settings) as db:
        with db.reading() as session:
            boxes.check_inside(blobs, boxes.find_image(session, image), drawn)
        with db.transaction() as session:
            written = store.add_annotation(
                session, boxes.find_image(session, image), drawn, label=label, number=number,
                source="tomonode label box", author=_who(by), at=now(session),
            )  # fmt: skip
    _say_box(written, number, as_json)


@app.command()
def unbox(
    image: SopUid,
    number: Annotated[int, typer.Argument(help="Number of the box, as `label show` lists it.")],
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Withdraw a box; it stays on record and counts no more."""
    with database() as db, db.transaction() as session:
        written = boxes.withdraw(
            session, boxes.find_image(session, image), number,
            source="tomonode label unbox", author=_who(by), at=now(session),
        )  # fmt: skip
    _say_box(written, number, as_json)


def _who(by: str | None) -> str:
    return getpass.getuser() if by is None else by


def _say_box(written: Annotation | None, number: int | None, as_json: bool) -> None:
    shown = written.number if written else number
    what = "withdrawn" if written is not None and written.withdrawn else "box"
    _say_written(written.revision if written else None, f"{what} {shown}", as_json)


def _say_written(revision: int | None, what: str, as_json: bool) -> None:
    if as_json:
        output.as_json({"label": what, "written": revision is not None, "revision": revision})
    elif revision is None:
        output.say(f"{what}: on record already, nothing written")
    else:
        output.say(f"{what}: revision {revision}")
