"""Pages of trainings: what runs and how far it is; launched, paused, resumed, cancelled, retried here.

A launch is handed to the command, which knows recipes and models. Nothing here changes what answers for the node.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from node import registry, trainings, views
from node.datasets import store
from node.db import now
from node.errors import ConfigError, Conflict, InvalidLabel, NotFound
from node.labels.values import name_of
from node.trainings import child
from node.views.training import TrainingPage, training_list, training_page
from node.web.curve import Curve, curve
from node.web.pages import Here, Limit, Node, back, refusal, status_of
from node.web.render import page

router = APIRouter()

RECIPES = ("fine-tune", "from-scratch", "birads-pretrain", "search")
"""What the form offers; `workers.recipes.RECIPES` says what each is."""

CanBeWished = Literal["pause", "resume", "cancel", "retry"]
_CHANGES = {
    "pause": trainings.pause,
    "resume": trainings.resume,
    "cancel": trainings.cancel,
}


class LaunchForm(BaseModel):
    """What the form sends; what is empty is not said. `changes` are NAME=VALUE, with spaces between them."""

    dataset: str = ""
    recipe: str = RECIPES[0]
    base: str = ""
    seed: str = ""
    gpus: str = ""
    search: str = ""
    changes: str = ""
    by: str = ""


@router.get("/trainings")
def list_trainings(node: Here, limit: Limit = 100) -> Response:
    """All trainings, newest first, and the form that launches one."""
    return _list_page(node, limit)


def _list_page(
    node: Node,
    limit: int = 100,
    status: int = 200,
    notice: str = "",
    form: Mapping[str, str] | None = None,
) -> Response:
    with node.db.reading() as session:
        at = now(session)
        return page(
            "trainings.html",
            status,
            now=at,
            overview=views.overview(session, node.settings, at),
            rows=training_list(session, limit),
            datasets=[one.name for one in store.listed(session)],
            versions=[one.version for one in registry.versions(session)],
            recipes=RECIPES,
            notice=notice,
            form=form,
        )


@router.get("/trainings/launch")
def launch_form(node: Here) -> Response:
    """The list with its form open; it stands still. Where reloading the page of a refused launch leads."""
    return _list_page(node, form={})


@router.post("/trainings/launch")
def launch(node: Here, form: Annotated[LaunchForm, Form()]) -> Response:
    """Launch a training and go to its page; or say on the list why not, with the form as it was."""
    given = form.model_dump()
    changes = given.pop("changes").split()
    try:
        given["by"] = name_of("your name", form.by)
        made = child.launch(node.settings, child.Wish(**given, changes=changes))
    except (ConfigError, InvalidLabel) as error:
        return _list_page(node, status=400, notice=str(error), form=form.model_dump())
    except Conflict as error:
        return _list_page(node, status=409, notice=str(error), form=form.model_dump())
    return RedirectResponse(f"/trainings/{made}", 303)


@router.get("/trainings/{training_id}")
def training(node: Here, training_id: uuid.UUID) -> Response:
    """The page of one training."""
    return _training_page(node, training_id)


def _training_page(
    node: Node, training_id: uuid.UUID, status: int = 200, notice: str = ""
) -> Response:
    with node.db.reading() as session:
        at = now(session)
        found = training_page(session, str(training_id), node.settings)
        return page(
            "training.html",
            status,
            now=at,
            overview=views.overview(session, node.settings, at),
            training=found,
            curves=_curves(found),
            notice=notice,
        )


def _curves(found: TrainingPage) -> list[Curve]:
    """Of each stage the metric on validation and the loss, each on its own scale."""
    stages: dict[str, list[Mapping[str, float]]] = {}
    for row in found.epochs:
        stages.setdefault(row.stage, []).append(row.metrics)
    curves = []
    for stage, epochs in stages.items():
        ends = ("1", str(len(epochs)))
        for name, what in (("metric", "metric on validation"), ("loss", "loss of training")):
            values = [metrics.get(name) for metrics in epochs]
            if any(value is not None for value in values):
                curves.append(curve(f"{stage}: {what}", {name: values}, ends))
    return curves


@router.get("/trainings/{training_id}/{wish}")
def after_refused_change(training_id: uuid.UUID) -> Response:
    """Where reloading the page of a refused change leads."""
    return RedirectResponse(f"/trainings/{training_id}", 303)


@router.post("/trainings/{training_id}/{wish}")
def change_training(
    node: Here, request: Request, training_id: uuid.UUID, wish: CanBeWished
) -> Response:
    """Pause, resume, cancel or retry a training, then go back; or say on its page why not."""

    def change(session: Session) -> None:
        at = now(session)
        if wish == "retry":
            trainings.retry(session, training_id, node.settings, at)
        else:
            _CHANGES[wish](session, training_id, at)

    refused = refusal(node, change)
    if isinstance(refused, NotFound):
        raise refused
    if refused is not None:
        return _training_page(node, training_id, status_of(refused), str(refused))
    return back(request, f"/trainings/{training_id}")
