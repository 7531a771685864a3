"""A claimed training, from its data set to an evaluated candidate; any part may be done again, with the same result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gmic import bundle
from gmic.errors import DataError, InputError
from gmic.train.distributed import Group
from gmic.train.task import Progress
from gmic.weights import WeightsInfo, load, save
from node import registry
from node.blobs import BlobStore
from node.config import Settings, child_environment
from node.datasets import store
from node.db import Database
from node.errors import Conflict
from node.learning_models import ModelVersion
from node.trainings import Claim
from workers import models
from workers.comparison import evaluate_version
from workers.errors import OverLimit
from workers.recipes import Recipe
from workers.train_images import MB, Form, ImageCache, folder_bytes, lay_out, lay_out_groups
from workers.train_processes import run_together
from workers.train_stages import Plan, base_model, model_config, run_plan, stages
from workers.train_watch import Watch

LICENCE = "not stated: trained on this node's data"


class Training:
    """What is done under one claim.

    Args:
        db: Of the node.
        settings: Of the node.
        held: The claim.
        watch: Asked between batches.
        run: Folder of the training.
        threads: CPU threads.
    """

    def __init__(
        self, db: Database, settings: Settings, held: Claim, watch: Watch, run: Path, threads: int
    ) -> None:
        self._db, self._settings, self._held, self._watch = db, settings, held, watch
        self._run = run
        self._threads = threads
        self._blobs = BlobStore.of(settings)
        self._recipe = Recipe.of_config(held.config)

    def weights(self) -> Path:
        """Make the images ready and train.

        Raises:
            Preempted, LeaseLost, OverLimit: by the watch, or for too much room.
            GmicError, WorkerError, NodeError, OSError: it cannot go on.
        """
        with self._db.reading() as session:
            store.verify(session, store.find(session, self._held.dataset_name))
        plan = self._plan()
        self._prepare(plan)
        self._watch.say(
            f"trains {len(self._held.images)} images, recipe {self._held.recipe}, as {plan.name}"
        )
        self._keep_epochs()
        if self._recipe.processes > 1:
            environment = child_environment(self._settings)
            return run_together(plan, self._watch, self._keep_epochs, environment)
        try:
            return run_plan(plan, Group(), self._step, self._watch.between)
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # inference shares the device

    def register(self, weights: Path) -> ModelVersion:
        """The candidate of these weights; the same weights are the same candidate."""
        held = self._held
        self._watch.lease()
        licence = LICENCE
        if held.base is not None:
            with self._db.reading() as session:
                licence = registry.find(session, held.base.version).licence
        more: dict[str, Any] = {
            "dataset_id": held.dataset_id,
            "dataset_hash": held.dataset_hash,
            "training_run_id": held.run_id,
            "code_version": held.code_version,
            "metrics": _best(weights.parent),
        }
        kept, info = self._with_threshold(weights)
        # The same request ends with other bytes on another device, and the name may be taken by these.
        with self._db.reading() as session:
            taken = registry.holder(session, f"{info.name}-{info.version}", info.sha256)
        if taken:
            more["version"] = f"{info.name}-{held.run_id.hex[:8]}"
        return models.register_file(self._db, self._blobs, kept, held.requested_by, licence, **more)

    def _with_threshold(self, weights: Path) -> tuple[Path, WeightsInfo]:
        """The weights with the base's threshold of segments on their card: a training chooses none of its own."""
        model, info = load(weights)
        base = self._held.base
        if base is None:
            return weights, info
        threshold = bundle.load(self._blobs.fetch(base.sha256)).info.segment_threshold
        if threshold == info.segment_threshold:
            return weights, info
        said = f"{info.description} Threshold of segments: that of {base.version}."
        path = weights.with_name("registered.safetensors")
        return path, save(model, path, replace(info, segment_threshold=threshold, description=said))

    def evaluate(self, version: str) -> str | None:
        """Measure the candidate beside the active version; why not, where the data set cannot tell."""
        if self._evaluated(version):
            return None
        try:
            evaluate_version(
                self._db, self._settings, version, self._held.dataset_name, self._watch.between
            )
        except (Conflict, InputError) as error:
            self._watch.say(f"not evaluated: {error}")
            return f"not evaluated: {error}"
        return None

    def _plan(self) -> Plan:
        held, base = self._held, self._held.base
        self._recipe.check_base(base.version if base else None)
        if base is not None:
            models.require(self._blobs, base.version, base.sha256)
        return Plan(
            config=self._recipe.to_config(),
            seed=held.seed,
            name=f"{held.recipe}-{held.request_hash[:8]}",
            base=base.version if base else None,
            base_file=str(self._blobs.fetch(base.sha256)) if base else None,
            run=str(self._run),
            device=None if self._settings.device == "auto" else self._settings.device,
            threads=max(1, self._threads // self._recipe.processes),
        )

    def _prepare(self, plan: Plan) -> None:
        """The images of the training, in its folder."""
        start = (
            base_model(plan.base, Path(plan.base_file)) if plan.base and plan.base_file else None
        )
        config = model_config(self._recipe, plan.base, start.config if start else None)
        form = Form(config.window_shape, self._recipe.images)
        cache = ImageCache(self._settings, self._blobs)
        images, data = self._held.images, self._run / "data"
        for split in ("train", "valid"):
            if not any(image.split == split for image in images):
                raise DataError(
                    f"data set {self._held.dataset_name!r} has no image in its {split} split; freeze a larger one"
                )
        lay_out(data, images, cache, form, self._held.disk_limit_mb, self._watch.between)
        if self._recipe.start == "birads":
            lay_out_groups(self._run / "groups", images, data)
        plan.out.mkdir(exist_ok=True)

    def _step(self, progress: Progress) -> None:
        if progress.metrics is not None:
            self._keep_epochs()
        self._watch.between()

    def _keep_epochs(self) -> None:
        if not self._watch.keep_epochs(stages(self._run / "out")):
            return
        used_mb, limit_mb = folder_bytes(self._run) // MB, self._held.disk_limit_mb
        if used_mb > limit_mb:
            raise OverLimit(
                f"training takes {used_mb} MB, the limit is {limit_mb} MB; raise TOMONODE_TRAINING_DISK_MB, then retry"
            )

    def _evaluated(self, version: str) -> bool:
        with self._db.reading() as session:
            row, active = registry.find(session, version), registry.active(session)
            against = active.id if active and active.id != row.id else None
            done = registry.evaluations(session, row.id)
            wanted = (self._held.dataset_id, against)
            return any((one.dataset_id, one.against_id) == wanted for one in done)


def _best(stage: Path) -> dict[str, Any]:
    """The figures of the epoch whose weights were kept."""
    lines = (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return max(rows, key=lambda row: float(row["metric"]))
