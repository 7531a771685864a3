"""The routes of pages of studies and deliveries. Each opens one reading transaction, reads a view and renders it;
retry alone writes here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from node import deliveries, registry, reruns, studies, views
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.errors import BlobAbsent, Conflict, DatabaseUnavailable, NotFound
from node.labels.views import study_labels
from node.model_version import model_version
from node.models import Artifact, Study
from node.views.worklist import MAX_ROWS
from node.web import viewer
from node.web.render import VERSION, page, path_part

router = APIRouter()


@dataclass(frozen=True)
class Node:
    """What the routes work on."""

    settings: Settings
    db: Database
    store: BlobStore


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


Here = Annotated[Node, Depends(_node)]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]
Offset = Annotated[int, Query(ge=0, le=10**9)]
Word = Annotated[str, Query(max_length=200)]


@router.get("/")
def work_list(
    node: Here, status: Word = "", text: Word = "", limit: Limit = 100, offset: Offset = 0
) -> Response:
    """The work list."""
    wanted = views.Filter(status or None, text.strip() or None, limit, offset)
    with node.db.reading() as session:
        at = now(session)
        return page(
            "worklist.html",
            now=at,
            overview=views.overview(session, node.settings, at),
            list=views.work_list(session, wanted, node.settings, at),
            wanted=wanted,
            expected=_as_they_hang(node.settings.expected_views),
        )


def _as_they_hang(names: Iterable[str]) -> list[str]:
    """Views such as `L-CC` in reading order: CC before MLO, right before left."""
    return sorted(names, key=lambda name: (name.partition("-")[2], name[:1] != "R"))


@router.get("/studies/{study_uid:path}/retry")
def after_refused_retry(study_uid: str) -> Response:
    """Where reloading the page of a refused retry leads."""
    return RedirectResponse(f"/studies/{path_part(study_uid)}", 303)


@router.get("/studies/{study_uid:path}")
def study(node: Here, study_uid: str) -> Response:
    """The page of one study."""
    return study_page(node, study_uid)


def study_page(
    node: Node,
    study_uid: str,
    status: int = 200,
    notice: str = "",
    form: Mapping[str, str] | None = None,
) -> Response:
    """The page of one study, with a notice; with what a form held (even nothing) the form is open."""
    with node.db.reading() as session:
        at = now(session)
        return page(
            "study.html",
            status,
            now=at,
            overview=views.overview(session, node.settings, at),
            study=views.study_page(session, study_uid, node.settings, at),
            labels=study_labels(session, studies.find(session, study_uid), at.date()),
            viewer=viewer.address(node.settings, study_uid),
            notice=notice,
            form=form,
        )


@router.post("/studies/{study_uid:path}/retry")
def retry_study(node: Here, request: Request, study_uid: str) -> Response:
    """Run the model on a study again, then go back; or say on its page why not."""

    def change(session: Session) -> None:
        found = studies.find(session, study_uid)
        wanted = registry.answering(session, model_version(node.settings))
        reruns.retry(session, found, node.settings, wanted, now(session))

    refused = refusal(node, change)
    if refused is not None:
        return study_page(node, study_uid, status_of(refused), str(refused))
    return back(request, f"/studies/{path_part(study_uid)}")


@router.get("/deliveries")
def delivery_list(node: Here, state: Word = "", limit: Limit = 100, offset: Offset = 0) -> Response:
    """All deliveries."""
    return _delivery_page(node, state or None, limit, offset)


def _delivery_page(
    node: Node,
    state: str | None = None,
    limit: int = 100,
    offset: int = 0,
    status: int = 200,
    notice: str = "",
) -> Response:
    with node.db.reading() as session:
        at = now(session)
        return page(
            "deliveries.html",
            status,
            now=at,
            overview=views.overview(session, node.settings, at),
            list=views.delivery_list(session, node.settings, at, state, limit, offset),
            state=state,
            limit=limit,
            offset=offset,
            notice=notice,
        )


@router.get("/deliveries/{delivery_id}/retry")
def after_refused_delivery_retry() -> Response:
    """Where reloading the page of a refused retry leads."""
    return RedirectResponse("/deliveries", 303)


@router.post("/deliveries/{delivery_id}/retry")
def retry_delivery(node: Here, request: Request, delivery_id: uuid.UUID) -> Response:
    """Try a failed delivery again, then go back; or say on the deliveries' page why not."""

    def change(session: Session) -> None:
        deliveries.retry(session, delivery_id, node.settings, now(session))

    refused = refusal(node, change)
    if refused is not None:
        return _delivery_page(node, status=status_of(refused), notice=str(refused))
    return back(request, "/deliveries")


def refusal(node: Node, change: Callable[[Session], None]) -> Conflict | NotFound | None:
    """Make a change in a transaction; why it could not be made, if so."""
    try:
        with node.db.transaction() as session:
            change(session)
    except (Conflict, NotFound) as error:
        return error
    return None


def status_of(refused: Conflict | NotFound) -> int:
    """The HTTP status that goes with it."""
    return 409 if isinstance(refused, Conflict) else 404


def back(request: Request, default: str) -> Response:
    """303 to the page of ours that the button was on."""
    came_from = urlsplit(request.headers.get("referer", ""))
    target = default
    if came_from.netloc == request.headers.get("host") and not came_from.path.endswith("/retry"):
        query = f"?{came_from.query}" if came_from.query else ""
        # one slash only: `//name` would be another host
        target = f"/{came_from.path.lstrip('/')}{query}"
    return RedirectResponse(target, 303)


@router.get("/artifacts/{artifact_id}")
def artifact(node: Here, artifact_id: uuid.UUID) -> Response:
    """The bytes of a file that a run made. Only what a row names can be read."""
    with node.db.reading() as session:
        found = session.get(Artifact, artifact_id)
    if found is None:
        raise NotFound(f"no file {artifact_id}; the study's page lists what its runs made")
    path = stored(node, found.sha256)
    if path is None:
        raise NotFound(f"{found.name} is not in the blob store ({found.sha256}); run it again")
    picture = found.kind == "OVERLAY"
    return FileResponse(
        path,
        media_type="image/png" if picture else "application/dicom",
        filename=found.name,
        content_disposition_type="inline" if picture else "attachment",
        headers={"Cache-Control": "private, max-age=31536000, immutable"},
    )


def stored(node: Node, sha256: str) -> Path | None:
    """The file of a blob, None where it is nowhere. Raises Transient where that cannot be said."""
    try:
        path = node.store.fetch(sha256)
    except BlobAbsent:
        return None
    return path if path.is_file() else None


@router.get("/healthz")
def health(node: Here) -> Response:
    """Whether the database answers and has the tables."""
    try:
        with node.db.reading() as session:
            session.execute(select(Study.id).limit(1)).first()
    except DatabaseUnavailable as error:
        return _unhealthy(str(error))
    except ProgrammingError:
        return _unhealthy("no tables; run `tomonode db upgrade`")
    return JSONResponse({"status": "ok", "database": "ok", "version": VERSION})


def _unhealthy(reason: str) -> Response:
    return JSONResponse({"status": "down", "database": reason, "version": VERSION}, 503)
