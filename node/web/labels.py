"""Labels over HTTP: the form on the study page, and the same as JSON under /api/labels.

A change needs an `Origin` of ours, as every change does (`node.web.guard`).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from node import studies
from node.db import now
from node.errors import InvalidLabel
from node.labels import boxes, store, values, views
from node.labels.importing import Wishes, import_labels
from node.labels.rule import WINDOW_DAYS
from node.labels.table import MAX_BYTES
from node.web import pages
from node.web.pages import Here, Limit, Offset
from node.web.render import path_part

router = APIRouter()

_FORM = "study page"
Days = Annotated[int, Query(ge=0, le=36500)]


class LabelForm(BaseModel):
    """What the form sends; what is empty is not said."""

    laterality: str = ""
    finding: str = ""
    found_on: str = ""
    birads: str = ""
    source: str = ""
    note: str = ""
    by: str = ""


@router.get("/studies/{study_uid:path}/labels")
def label_form(node: Here, study_uid: str) -> Response:
    """The study page with its form open; it stands still."""
    return pages.study_page(node, study_uid, form={})


@router.post("/studies/{study_uid:path}/labels")
def label_study(node: Here, study_uid: str, form: Annotated[LabelForm, Form()]) -> Response:
    """Write what the form says, then go back; or say on its page why not, with the form as it was."""
    try:
        with node.db.transaction() as session:
            _write(session, study_uid, form)
    except InvalidLabel as error:
        return pages.study_page(node, study_uid, 400, str(error), form.model_dump())
    return RedirectResponse(f"/studies/{path_part(study_uid)}#labels", 303)


def _write(session: Session, study_uid: str, form: LabelForm) -> None:
    study, at = studies.find(session, study_uid), now(session)
    side = values.laterality_of(form.laterality)
    origin = store.Origin(source=form.source.strip() or _FORM, author=form.by, at=at)
    if not form.finding and not form.birads:
        raise InvalidLabel("nothing was chosen; choose a finding or a BI-RADS category")
    if form.finding:
        finding = values.finding_of(form.finding, values.day_of("found_on", form.found_on))
        store.add_pathology(session, study, side, **vars(finding), note=form.note, **origin)
    if form.birads:
        category = values.category_of(form.birads)
        store.add_assessment(session, study, side, category=category, **origin)


class _Said(BaseModel):
    """What every label brings: where it comes from, and who says so."""

    source: str
    by: str


class PathologyIn(_Said):
    """What pathology said of one breast."""

    laterality: Literal["L", "R"]
    benign: bool
    malignant: bool
    found_on: date
    note: str | None = None


class AssessmentIn(_Said):
    """A BI-RADS category of one breast."""

    laterality: Literal["L", "R"]
    category: int


class BoxIn(_Said):
    """A box on one frame; frame, row and column from 0, in stored pixels. `number` corrects a box of the image."""

    label: Literal["benign", "malignant"]
    frame: int
    row: int
    col: int
    height: int
    width: int
    number: Annotated[int | None, Field(ge=1)] = None


@router.get("/api/labels")
def list_labels(node: Here, limit: Limit = 100, offset: Offset = 0) -> Response:
    """Labelled breasts, the one labelled last first."""
    with node.db.reading() as session:
        return _json([asdict(row) for row in views.label_list(session, limit, offset)])


@router.get("/api/labels/imports")
def list_imports(node: Here, limit: Limit = 100) -> Response:
    """Imported files, newest first."""
    with node.db.reading() as session:
        return _json([asdict(row) for row in views.import_list(session, limit)])


@router.post("/api/labels/imports")
async def import_file(
    node: Here,
    request: Request,
    by: str,
    source: str,
    dry_run: bool = False,
    match_days: Days = Wishes.match_days,
    encoding: str | None = None,
) -> Response:
    """Import a CSV file, which is the body as it is; the report has a row a row."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BYTES:
            raise InvalidLabel(f"the file has more than {MAX_BYTES // 2**20} MB; split it")
    wishes = Wishes(source, by, dry_run, match_days, encoding)
    report = await run_in_threadpool(import_labels, node.db, bytes(content), wishes)
    return _json(asdict(report))


@router.get("/api/labels/studies/{study_uid}")
def show_labels(node: Here, study_uid: str, window_days: Days = WINDOW_DAYS) -> Response:
    """The labels of one study, every revision, and what each breast counts as today."""
    with node.db.reading() as session:
        found = studies.find(session, study_uid)
        return _json(asdict(views.study_labels(session, found, now(session).date(), window_days)))


@router.post("/api/labels/studies/{study_uid}/pathology")
def add_pathology(node: Here, study_uid: str, said: PathologyIn) -> Response:
    """Say what pathology proved; a correction is the next revision."""
    with node.db.transaction() as session:
        row = store.add_pathology(
            session, studies.find(session, study_uid), said.laterality, benign=said.benign,
            malignant=said.malignant, found_on=said.found_on, note=said.note, **_origin(session, said),
        )  # fmt: skip
    return _written(row.revision if row else None)


@router.post("/api/labels/studies/{study_uid}/assessments")
def add_assessment(node: Here, study_uid: str, said: AssessmentIn) -> Response:
    """Say which BI-RADS category was given; a correction is the next revision."""
    with node.db.transaction() as session:
        study = studies.find(session, study_uid)
        origin = _origin(session, said)
        row = store.add_assessment(
            session, study, said.laterality, category=said.category, **origin
        )
    return _written(row.revision if row else None)


@router.post("/api/labels/images/{sop_uid}/boxes")
def add_box(node: Here, sop_uid: str, said: BoxIn) -> Response:
    """Draw a box, for evaluation only."""
    box = values.Box(said.frame, said.row, said.col, said.height, said.width)
    with node.db.reading() as session:
        image = boxes.find_image(session, sop_uid)
    boxes.check_inside(node.store, image, box)
    with node.db.transaction() as session:
        row = store.add_annotation(
            session, image, box, label=said.label, number=said.number, **_origin(session, said)
        )
    return _written(row.revision if row else None, number=row.number if row else said.number)


@router.post("/api/labels/images/{sop_uid}/boxes/{number}/withdraw")
def withdraw_box(node: Here, sop_uid: str, number: int, said: _Said) -> Response:
    """Let a box count no more."""
    with node.db.transaction() as session:
        image = boxes.find_image(session, sop_uid)
        row = boxes.withdraw(session, image, number, **_origin(session, said))
    return _written(row.revision if row else None, number=number)


def _origin(session: Session, said: _Said) -> store.Origin:
    return store.Origin(source=said.source, author=said.by, at=now(session))


def _written(revision: int | None, **more: object) -> Response:
    """201 with the revision; 200 where the same was on record."""
    answer = {"written": revision is not None, "revision": revision, **more}
    return _json(answer, 200 if revision is None else 201)


def _json(value: object, status: int = 200) -> Response:
    return JSONResponse(jsonable_encoder(value), status)
