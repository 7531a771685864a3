"""`tomonode model`: which weights there are, what each is used for, and who decided so."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from dicom_io.result_codes import UNTRAINED_NOTICE
from node import model_history, registry
from node.blobs import BlobStore
from node.cli import output
from node.cli.context import database
from node.config import Settings, load_settings
from node.db import Database, now
from node.errors import NotFound
from node.learning_models import Evaluation, ModelVersion
from node.promotion import Signed, Terms
from workers.published_options import NumPatches, PercentT, patches_of, top_t_of

_Change = Callable[[Session, str, Signed, datetime], ModelVersion]

app = typer.Typer(
    help="Model versions: weights in the registry, and which of them answers. Research use only."
)

_EVALUATION = ("made", "data set", "against", "malignant AUC", "difference")
_DECISION = ("at", "event", "from_state", "to_state", "by", "approved_by", "overridden", "reason")

Version = Annotated[str, typer.Argument(help="Name of the version.")]
By = Annotated[str | None, typer.Option(help="Who; by default your login name.")]
Reason = Annotated[str | None, typer.Option(help="Why; it is kept with the decision.")]


@app.command("list")
def list_(as_json: output.AsJson = False) -> None:
    """List versions, newest first."""
    with database() as db, db.reading() as session:
        rows = [_columns(row) for row in registry.versions(session)]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("version", "state", "weights", "trained", "licence", "made", "by"),
        [
            (row["version"], row["state"].lower(), row["sha256"][:12], _yes(row["trained"]), row["licence"],
             row["created_at"], row["created_by"])
            for row in rows
        ],
        "no model versions; `tomonode model import` adds one. Until one is active the configured weights answer",
    )  # fmt: skip


@app.command()
def show(
    version: Version,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the newest evaluation's page here.")
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show a version's card, its evaluations and every decision about it."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        row = registry.find(session, version)
        measured = registry.evaluations(session, row.id)
        decided = [_columns(one) for one in model_history.decisions(session, row.id)]
    if page is not None:
        if not measured:
            raise NotFound(
                f"model {version!r} has no evaluation; `tomonode model compare` makes one"
            )
        _write_page(settings, measured[0], page)
    if as_json:
        output.as_json(
            {**_columns(row), "evaluations": [_columns(e) for e in measured], "decisions": decided}
        )
        return
    _show_card(_columns(row))
    output.say("\nevaluations, newest first")
    none = "none; `tomonode model compare` makes one"
    output.table(_EVALUATION, [_evaluation_row(one) for one in measured], none)
    output.say("\ndecisions")
    output.table(_DECISION, [[one[name] for name in _DECISION] for one in decided], "none")


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="A weights file of ours, or published checkpoints: several are an ensemble.",
            exists=True,
            dir_okay=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What reports will call it.")] = None,
    percent_t: PercentT = "",
    num_patches: NumPatches = "",
    threshold: Annotated[
        float, typer.Option(help="Saliency from which a cell of published weights is drawn.")
    ] = 0.5,
    licence: Annotated[str, typer.Option(help="Under which they may be used.")] = "not stated",
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Put weights into the registry, as a candidate; the same weights again change nothing.

    Published checkpoints are read without running code and kept as safetensors. Five files without values are taken
    for the released ensemble, in its order.
    """
    from workers.importing import Wanted, import_files

    wanted = Wanted(files, name, licence, top_t_of(percent_t), patches_of(num_patches), threshold)
    settings = load_settings()
    with database(settings) as db:
        row = import_files(db, settings, wanted, by or getpass.getuser())
    _say(row, as_json, f"weights {row.sha256[:12]}")


@app.command()
def promote(
    version: Version,
    by: By = None,
    approved_by: Annotated[str | None, typer.Option(help="Who approves of it.")] = None,
    override: Annotated[
        bool, typer.Option("--override", help="Promote although no evaluation carries it.")
    ] = False,
    reason: Reason = None,
    as_json: output.AsJson = False,
) -> None:
    """Let a version answer for the node from the next study on; old studies are not read again."""
    signed = Signed(by or getpass.getuser(), approved_by, reason, override)
    settings = load_settings()
    terms = Terms.of(settings)
    with database(settings) as db:
        _require_weights(db, settings, version)
        with db.transaction() as session:
            row = registry.promote(session, version, signed, terms, now(session))
    _say(row, as_json, "it answers for the node")


@app.command()
def rollback(by: By = None, reason: Reason = None, as_json: output.AsJson = False) -> None:
    """Go back to the version that was active before; a second time, one further back. Needs no evaluation."""
    signed = Signed(by or getpass.getuser(), reason=reason)
    settings = load_settings()
    with database(settings) as db:
        with db.reading() as session:
            before = model_history.previous(session)
        if before is not None:
            _require_weights(db, settings, before.version)
        with db.transaction() as session:
            row = registry.rollback(session, signed, now(session))
    if row is None:
        said = "no version was active before: the configured weights answer"
        output.as_json({"version": None, "state": None, "said": said}) if as_json else output.say(
            said
        )
        return
    _say(row, as_json, "it answers for the node")


@app.command()
def shadow(
    version: Version, by: By = None, reason: Reason = None, as_json: output.AsJson = False
) -> None:
    """Let a version read every study from now on, beside the one that answers; its results are never delivered."""
    with database() as db:
        _require_weights(db, load_settings(), version)
    row = _decided(registry.shadow, version, by, reason)
    _say(row, as_json, "it reads every study, and nothing of it is delivered")


@app.command()
def withdraw(
    version: Version, by: By = None, reason: Reason = None, as_json: output.AsJson = False
) -> None:
    """Take a version out of the shadow; what it has not begun to read is dropped."""
    _say(_decided(registry.withdraw, version, by, reason), as_json)


@app.command()
def retire(
    version: Version, by: By = None, reason: Reason = None, as_json: output.AsJson = False
) -> None:
    """Put a version away; its weights and history stay, and it may come back."""
    _say(_decided(registry.retire, version, by, reason), as_json)


@app.command()
def compare(
    candidate: Version,
    dataset: Annotated[str, typer.Option(help="Data set whose test split is read.")],
    against: Annotated[
        str | None, typer.Argument(help="The version beside it; by default the active one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the page here.")] = None,
    as_json: output.AsJson = False,
) -> None:
    """Measure a version beside another on a locked test split; stopped and called again, it goes on where it was."""
    from workers.comparison import evaluate_version

    settings = load_settings()
    say = (lambda _line: None) if as_json else output.say
    with database(settings) as db:
        row = evaluate_version(db, settings, candidate, dataset, against=against, say=say)
    if out is not None:
        _write_page(settings, row, out)
    if as_json:
        output.as_json(_columns(row))
        return
    output.table(_EVALUATION, [_evaluation_row(row)], "")
    output.scores_notice("" if all(row.summary["trained"].values()) else UNTRAINED_NOTICE)
    output.say(f"page in {out}" if out else "`tomonode model show --page FILE` writes the page")


def _decided(change: _Change, version: str, by: str | None, reason: str | None) -> ModelVersion:
    signed = Signed(by or getpass.getuser(), reason=reason)
    with database() as db, db.transaction() as session:
        return change(session, version, signed, now(session))


def _show_card(card: dict[str, Any]) -> None:
    members = card["architecture"]["members"]
    what = "an ensemble of " if len(members) > 1 else ""
    each = "; ".join(f"K {m['num_patches']}, t {m['top_t_fraction']:.4g}" for m in members)
    plain = ("version", "state", "sha256", "trained", "description", "licence", "dataset_hash")
    more = ("training_run_id", "code_version", "created_by", "created_at")
    nested = ("preprocessing", "operating_points", "metrics")
    output.fields(
        {
            **{name.replace("_", " "): card[name] for name in plain},
            "architecture": f"{what}{card['architecture']['algorithm']} ({each})",
            **{name.replace("_", " "): card[name] for name in more},
            **{
                name.replace("_", " "): ", ".join(f"{k} {v}" for k, v in card[name].items()) or None
                for name in nested
            },
        }
    )


def _require_weights(db: Database, settings: Settings, version: str) -> None:
    """A version whose weights are gone would fail every run."""
    from workers.models import require

    with db.reading() as session:
        row = registry.find(session, version)
    require(BlobStore.of(settings), version, row.sha256)


def _write_page(settings: Settings, row: Evaluation, path: Path) -> None:
    path.write_bytes(BlobStore.of(settings).fetch(row.report_sha256).read_bytes())


def _say(row: ModelVersion, as_json: bool, more: str = "") -> None:
    if as_json:
        output.as_json(_columns(row))
    else:
        output.say(f"{row.version} is {row.state.lower()}{more and '; ' + more}")


def _columns(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def _evaluation_row(row: Evaluation) -> tuple[object, ...]:
    malignant = row.summary["breast"]["malignant"]
    figures = (_figure(malignant["auc"]), _figure(malignant["difference"]))
    return (row.created_at, row.summary["dataset"], row.summary["against"], *figures)


def _figure(estimate: dict[str, float] | None) -> str | None:
    if estimate is None:
        return None
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
