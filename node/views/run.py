"""The runs of a study with what they found, made and sent."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.config import Settings
from node.models import Artifact, Delivery, ImageResult, Instance, Run, Study
from node.results import KINDS, OVERLAY, SEG
from node.views.deliveries import DeliveryView, delivery_views
from node.views.rows import caveat, trained

_SIDES = {"R": 0, "L": 1}


@dataclass(frozen=True)
class ArtifactView:
    """A file a run made, of one of `results.KINDS` or a picture."""

    id: uuid.UUID
    kind: str
    name: str
    source_sop_uid: str | None
    sop_uid: str | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class RegionView:
    """A suspicious region: source frames from 0, inclusive; centre in pixels; score in [0, 1]."""

    label: str
    first_frame: int
    last_frame: int
    key_frame: int
    centre_row: float
    centre_col: float
    score: float


@dataclass(frozen=True)
class ImageView:
    """What a run says of one image: scores in [0, 1], or why it was left out; with its pictures and its SEG."""

    sop_uid: str
    laterality: str | None
    view: str | None
    frames: int | None
    benign: float | None
    malignant: float | None
    segments: int
    regions: tuple[RegionView, ...]
    excluded_reason: str | None
    notes: tuple[str, ...]  # what was odd about it and got around
    pictures: tuple[ArtifactView, ...]
    segmentation: ArtifactView | None


@dataclass(frozen=True)
class RunView:
    """One run with its results; `trained`, `model` are None before it has any."""

    id: uuid.UUID
    generation: int
    state: str
    attempt: int
    max_attempts: int
    model_version: str
    shadow: bool
    model: Mapping[str, Any] | None
    trained: bool | None
    caveat: str | None
    worker: str | None
    error: str | None
    error_code: str | None
    predecessor_id: uuid.UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime
    stage_seconds: Mapping[str, float]
    images: tuple[ImageView, ...]
    artifacts: tuple[ArtifactView, ...]
    deliveries: tuple[DeliveryView, ...]


def run_views(
    session: Session, study: Study, settings: Settings, at: datetime
) -> tuple[RunView, ...]:
    """The runs of a study, newest first, in six queries however many there are."""
    query = select(Run).where(Run.study_id == study.id).order_by(Run.created_at.desc())
    found = session.execute(query).scalars().all()
    ids = [run.id for run in found]
    images: dict[uuid.UUID, list[tuple[ImageResult, Instance]]] = defaultdict(list)
    results = select(ImageResult, Instance).join(Instance, Instance.sop_uid == ImageResult.sop_uid)
    for image, instance in session.execute(results.where(ImageResult.run_id.in_(ids))):
        images[image.run_id].append((image, instance))
    files: dict[uuid.UUID, list[ArtifactView]] = defaultdict(list)
    made = session.execute(select(Artifact).where(Artifact.run_id.in_(ids))).scalars()
    order = (*KINDS, OVERLAY)
    for artifact in sorted(made, key=lambda a: (order.index(a.kind), a.name)):
        files[artifact.run_id].append(_artifact(artifact))
    deliveries = delivery_views(session, Delivery.run_id.in_(ids), settings, at)
    return tuple(
        _run(
            run,
            images[run.id],
            tuple(files[run.id]),
            tuple(delivery for delivery in deliveries if delivery.run_id == run.id),
        )
        for run in found
    )


def _run(
    run: Run,
    images: Sequence[tuple[ImageResult, Instance]],
    files: tuple[ArtifactView, ...],
    deliveries: tuple[DeliveryView, ...],
) -> RunView:
    views = [_image(image, instance, files) for image, instance in images]
    # as images hang: right before left, CC before MLO
    views.sort(key=lambda v: (v.view or "~", _SIDES.get(v.laterality or "", 2), v.sop_uid))
    return RunView(
        id=run.id,
        generation=run.generation,
        state=run.state,
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        model_version=run.model_version,
        shadow=run.shadow,
        model=run.model,
        trained=trained(run),
        caveat=caveat(run),
        worker=run.worker,
        error=run.error,
        error_code=run.error_code,
        predecessor_id=run.predecessor_id,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        not_before=run.not_before,
        stage_seconds=run.stage_seconds or {},
        images=tuple(views),
        artifacts=files,
        deliveries=deliveries,
    )


def _image(image: ImageResult, instance: Instance, files: Sequence[ArtifactView]) -> ImageView:
    mine = [file for file in files if file.source_sop_uid == image.sop_uid]
    return ImageView(
        sop_uid=image.sop_uid,
        # an image that was left out has only what its header said when it came
        laterality=image.laterality or instance.laterality,
        view=image.view or instance.view,
        frames=image.frames or instance.frames,
        benign=image.score_benign,
        malignant=image.score_malignant,
        segments=image.segments,
        # what a reader looks for first comes first
        regions=tuple(
            sorted(map(_region, image.regions), key=lambda r: (r.label != "malignant", -r.score))
        ),
        excluded_reason=image.excluded_reason,
        notes=tuple(image.notes or ()),
        pictures=tuple(file for file in mine if file.kind == OVERLAY),
        segmentation=next((file for file in mine if file.kind == SEG), None),
    )


def _region(region: Mapping[str, Any]) -> RegionView:
    return RegionView(**{name: region[name] for name in RegionView.__dataclass_fields__})


def _artifact(artifact: Artifact) -> ArtifactView:
    return ArtifactView(
        **{name: getattr(artifact, name) for name in ArtifactView.__dataclass_fields__}
    )
