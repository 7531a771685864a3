"""`tomonode label mask`: masks that readers drew, for the evaluation."""

from __future__ import annotations

import getpass
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from node.blobs import BlobStore
from node.cli import output
from node.cli.context import database
from node.config import load_settings


def mask(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="DICOM Segmentation objects drawn on images that are here.",
            exists=True,
            dir_okay=False,
        ),
    ],
    label: Annotated[
        str | None,
        typer.Option(help="benign or malignant; by default what the segment's property says."),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who says so; by default your login name.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Where they come from; by default the file's name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Import masks that readers drew, for evaluation only; never used in training. What can be taken is taken; the same
    object again changes nothing; exit code 1 if a segment was refused."""
    # It brings the readers of pixels with it, which no other command of labels needs.
    from node.labels.masks import MaskOutcome, MaskRow, MaskWishes, import_masks, outcomes

    settings = load_settings()
    wishes = MaskWishes(by or getpass.getuser(), source, label, dry_run)
    with database(settings) as db:
        blobs = BlobStore.of(settings)
        rows = import_masks(db, blobs, files, wishes)
    if as_json:
        output.as_json([asdict(row) for row in rows])
    else:
        names = [field.name for field in fields(MaskRow)]
        output.table(
            [name.replace("_", " ") for name in names],
            [list(asdict(row).values()) for row in rows],
            "the files hold no segment",
        )
        said = ", ".join(outcomes(rows)) or "no segments"
        output.say(f"\n{'dry run, nothing written: ' if dry_run else ''}{said}")
    if any(row.outcome is MaskOutcome.REFUSED for row in rows):
        raise typer.Exit(1)
