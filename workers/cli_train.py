"""`tomonode train launch` and `schedule`: what needs recipes and models, beside the commands of `node.cli.train`."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from gmic.config import CLASSES
from node import registry, trainings
from node.cli import output
from node.cli.context import database
from node.cli.train import app
from node.config import load_settings
from node.datasets import store
from node.db import now
from node.errors import ConfigError, Conflict

__all__ = ["app"]

EXIT_NOT_DUE = 3

Recipe = Annotated[
    str, typer.Option(help="fine-tune, from-scratch, birads-pretrain or search; docs/training.md.")
]
Dataset = Annotated[str, typer.Option(help="A frozen data set.")]
Base = Annotated[
    str | None, typer.Option(help="Model version to start from; fine-tune: else the active one.")
]
Gpus = Annotated[int | None, typer.Option(min=1, help="GPUs that train together.")]
Search = Annotated[
    int | None, typer.Option(min=1, help="Trials of a random search; the best one is kept.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same weights.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe; may be repeated.")
]
By = Annotated[str | None, typer.Option(help="Who launches it; by default the login name.")]


@app.command()
def launch(
    dataset: Dataset,
    recipe: Recipe = "fine-tune",
    base: Base = None,
    gpus: Gpus = None,
    search: Search = None,
    seed: Seed = 0,
    set_: Set = None,
    by: By = None,
    as_json: output.AsJson = False,
) -> None:
    """Launch a training on a frozen data set. The same training launched again is the one that is there.

    Its model becomes a candidate, is evaluated, and changes nothing live. Research use only, not for clinical use.
    """
    from gmic.train.pretrain_step import birads_group
    from workers.recipes import recipe as made_of

    made = made_of(recipe, set_ or (), gpus, search)
    settings = load_settings()
    with database(settings) as db, db.transaction() as session:
        found = store.find(session, dataset)
        active = registry.active(session)
        if base is None and made.start == "base" and active is not None:
            base = active.version
        made.check_base(base)
        _check_architecture(session, base, made)
        classes = CLASSES if made.training.metric == "mean" else (made.training.metric,)
        grouped = made.start == "birads" and made.pretrain.target == "birads"
        group_of = birads_group if grouped else None
        why = trainings.unlearnable(session, found.id, classes, group_of)
        if why is not None:
            raise Conflict(
                f"nothing can be learned from data set {dataset!r}: {why}; freeze another"
            )
        wanted = trainings.Request(found.id, recipe, made.to_config(), seed, base, _code_version())
        who = by or getpass.getuser()
        run, fresh = trainings.request(session, wanted, settings, who, now(session))
        state = run.state
    if as_json:
        output.as_json({"id": run.id, "state": state, "new": fresh, "recipe": recipe, "base": base})
        return
    said = "queued" if fresh else f"here already, {state}"
    output.say(f"training {run.id} {said}")


def _code_version() -> str:
    from workers.models import CODE_VERSION

    return CODE_VERSION


def _check_architecture(session: Session, base: str | None, made: Any) -> None:
    """Refuse a base that the recipe cannot start from, or a model that cannot be, before anything is queued.

    Raises:
        NotFound: no such version.
        ConfigError: it is an ensemble, or of another architecture than the recipe asks for.
    """
    from gmic.config import GMIC3DConfig
    from gmic.errors import ConfigError as ModelConfigError
    from workers.predictor import ALGORITHM
    from workers.train_stages import model_config

    config = None
    if base is not None:
        architecture = registry.find(session, base).architecture
        members = architecture.get("members", [])
        if architecture.get("algorithm") != ALGORITHM or len(members) != 1:
            what = f"{architecture.get('algorithm')} with {len(members)} members"
            raise ConfigError(
                f"model {base} is of another architecture ({what}); a training starts from one {ALGORITHM} model"
            )
        config = GMIC3DConfig.from_dict(members[0])
    try:
        model_config(made, base, config)
    except ModelConfigError as error:
        raise ConfigError(str(error)) from None


@app.command()
def schedule(
    exams: Annotated[int, typer.Option(min=1, help="How many newly labelled exams make it due.")],
    as_json: output.AsJson = False,
) -> None:
    """Say whether a training is due: exit code 0 with enough newly labelled exams since the last launch, else 3.

    An exam counts once, with the first pathology of any of its breasts. For cron: see docs/training.md.
    """
    with database() as db, db.reading() as session:
        count, since = trainings.newly_labelled(session)
    due = count >= exams
    if as_json:
        output.as_json({"due": due, "newly_labelled": count, "wanted": exams, "since": since})
    else:
        after = f" since {output.text(since)}" if since else ""
        output.say(f"{'due' if due else 'not due'}: {count} of {exams} newly labelled exams{after}")
    if not due:
        raise typer.Exit(EXIT_NOT_DUE)
