"""`tomonode dataset`: freeze a snapshot of images and labels, look at it, ask why a study is not in, export a copy."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.datasets import store
from node.datasets.rule import Kind, Rule
from node.labels.rule import WINDOW_DAYS
from node.learning_models import Dataset

app = typer.Typer(help="Data sets: frozen snapshots of images and labels, split by patient.")

Name = Annotated[str, typer.Argument(help="Name of the data set.")]
Window = Annotated[
    int, typer.Option(min=0, help="Days after the exam in which pathology belongs to it.")
]
KindOption = Annotated[Kind, typer.Option(help="Tomosynthesis, or 2D mammography.")]
Day = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], help="Study date, included: YYYY-MM-DD.")
]


@app.command()
def freeze(
    name: Name,
    since: Day,
    until: Day,
    window_days: Window = WINDOW_DAYS,
    kind: KindOption = Kind.DBT,
    by: Annotated[str | None, typer.Option(help="Who; by default your login name.")] = None,
    allow_one_class: Annotated[
        bool, typer.Option("--allow-one-class", help="Even if train or test lacks a class.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Freeze the images and labels of a range of exams, split 80/10/10 by patient; again, with the same content,
    nothing happens."""
    from node.datasets.freeze import Wish
    from node.datasets.freeze import freeze as freeze_now  # reads images, which others need not

    settings = load_settings()
    rule = Rule(since.date(), until.date(), kind, window_days)
    wish = Wish(name, rule, by or getpass.getuser(), allow_one_class)
    with database(settings) as db:
        frozen = freeze_now(db, settings, wish)
    if as_json:
        output.as_json({"new": frozen.new, **_row(frozen.dataset)})
        return
    _show(frozen.dataset)
    output.say("frozen" if frozen.new else "it was frozen before, with the same content")


@app.command("list")
def list_(as_json: output.AsJson = False) -> None:
    """List data sets, newest first."""
    with database() as db, db.reading() as session:
        rows = [_row(dataset) for dataset in store.listed(session)]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("name", "frozen", "by", "patients", "images", "malignant breasts", "content"),
        [
            (
                row["name"],
                row["created_at"],
                row["created_by"],
                _total(row, "patients"),
                _total(row, "images"),
                _total(row, "malignant"),
                row["content_hash"][:12],
            )
            for row in rows
        ],
        "no data sets yet; `tomonode dataset freeze` makes one",
    )


@app.command()
def show(
    name: Name,
    excluded: Annotated[
        bool, typer.Option("--excluded", help="Also every study and image that is not in, and why.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show a data set: rule, counts by split, what was left out; checks that it is what was frozen."""
    with database() as db, db.reading() as session:
        dataset = store.find(session, name)
        store.verify(session, dataset)
        columns = ("study_uid", "sop_uid", "code", "reason")
        left_out = [
            {column: getattr(one, column) for column in columns}
            for one in (store.exclusions(session, dataset.id) if excluded else ())
        ]
    if as_json:
        output.as_json(_row(dataset) | ({"excluded": left_out} if excluded else {}))
        return
    _show(dataset)
    if excluded:
        output.say()
        output.table(columns, [list(one.values()) for one in left_out], "nothing was left out")


@app.command("why")
def why_(
    study: Annotated[str, typer.Argument(help="Study Instance UID, or the node's own id.")],
    dataset: Annotated[
        str | None, typer.Option(help="A frozen data set; without it, what freezing now would say.")
    ] = None,
    window_days: Window = WINDOW_DAYS,
    kind: KindOption = Kind.DBT,
    as_json: output.AsJson = False,
) -> None:
    """Say of each image of a study whether a data set holds it, and why not."""
    from node.datasets import why

    settings = load_settings()
    with database(settings) as db:
        if dataset is None:
            today = date.today()
            answers = why.why_now(db, settings, study, Rule(today, today, kind, window_days))
        else:
            with db.reading() as session:
                answers = why.why_frozen(session, study, dataset)
    if as_json:
        output.as_json([asdict(answer) for answer in answers])
        return
    output.table(
        ("image", "", "why"),
        [(one.sop_uid or "(the study)", one.code, one.reason) for one in answers],
        "the study holds nothing",
    )


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Argument(help="A new or empty folder.", file_okay=False)],
    unstated: Annotated[
        bool,
        typer.Option(
            "--unstated-annotation",
            help="Also images that do not say whether writing is burned into their pixels; look at them first.",
        ),
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Write a de-identified copy: DICOM files, labels.csv, manifest.json. The way back stays under the node's home."""
    from node.datasets.export import export as export_copy

    settings = load_settings()
    with database(settings) as db:
        done = export_copy(db, settings, name, out, unstated)
    if as_json:
        output.as_json(asdict(done))
        return
    output.say(f"{done.images} images in {done.folder}; the way back is {done.key_file}, keep it")
    output.say(output.RESEARCH_ONLY)
    if done.held_back:
        output.table(
            ("held back (new UID)", "", "why"),
            [(one.sop_uid, one.code, one.reason) for one in done.held_back],
            "",
        )


def _row(dataset: Dataset) -> dict[str, Any]:
    columns = ("name", "content_hash", "rule", "counts", "created_by", "created_at")
    return {name: getattr(dataset, name) for name in columns}


def _total(row: Mapping[str, Any], what: str) -> int:
    return sum(part[what] for part in row["counts"]["splits"].values())


def _show(dataset: Dataset) -> None:
    rule = dataset.rule
    output.fields(
        {
            "data set": dataset.name,
            "content": dataset.content_hash,
            "exams": f"{rule['since']} to {rule['until']}, {rule['kind']}",
            "pathology": f"up to {rule['window_days']} days after the exam",
            "frozen": dataset.created_at,
            "by": dataset.created_by,
            "one class": "; ".join(dataset.counts["one_class"]) or None,
        }
    )
    splits = dataset.counts["splits"]
    headings = list(next(iter(splits.values())))
    output.say()
    output.table(
        ("split", *headings),
        [(split, *(part[name] for name in headings)) for split, part in splits.items()],
        "",
    )
    excluded = dataset.counts["excluded"]
    if excluded:
        output.say()
        output.table(("left out", "count"), list(excluded.items()), "")
