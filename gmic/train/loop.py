"""The loop around every training: epochs, steps, validation, the best weights, going on after a kill.

Chance in a step comes from a generator made of (seed, epoch, step, process), so where a training
stands says all about its random numbers, and a checkpoint need hold none. After a kill at any moment
the work since the last checkpoint is done again, the same way, and files written since are written
again with the same content. On one CPU process the result is the same bit for bit.

Files in the folder of a training, which all its processes must see and the first one writes:

    checkpoint          where it stands (`gmic.train.checkpoint`)
    best.safetensors    weights of the best epoch so far
    metrics.jsonl       a line for each epoch
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gmic.errors import CheckpointError, DivergedError, Interrupted
from gmic.train.checkpoint import decode, encode, only_writer, require_same, write_atomically
from gmic.train.distributed import Group, running_statistics
from gmic.train.settings import TrainConfig
from gmic.train.task import Progress, Task, Watcher

CHECKPOINT, BEST, METRICS = "checkpoint", "best.safetensors", "metrics.jsonl"

_MAY_LACK = ("omega",)
"""Parts of a training's identity that older checkpoints do not hold, or whoever resumes does not know."""


@dataclass
class _State:
    """Where a training stands, apart from weights and optimizer."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_metric: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class LoopResult:
    """How a training ended.

    Attributes:
        best_epoch: Epoch of the weights kept, from 1.
        best_metric: Its validation metric.
        history: Figures of each epoch: epoch, loss, and what `Task.measure` gave.
        stopped_early: Whether the goal was reached or patience ran out before the epochs did.
    """

    best_epoch: int
    best_metric: float
    history: tuple[Mapping[str, float], ...]
    stopped_early: bool


def run(
    task: Task,
    config: TrainConfig,
    out_dir: Path,
    *,
    resume: bool = False,
    group: Group | None = None,
    on_progress: Watcher | None = None,
) -> LoopResult:
    """Train to the end; a training that had ended already is read back.

    Raises:
        CheckpointError: `resume` and the folder's checkpoint is damaged or of another training, or
            not `resume` and the folder holds a checkpoint.
        DivergedError: The loss or a gradient is no longer finite.
        TrainingError: Another process trains in this folder, or a process of the group is lost.
        ConfigError: The batch cannot be shared among the processes.
        OSError: A file could not be written.
    """
    group = group or Group()
    config.require_shareable(group.size)
    out_dir.mkdir(parents=True, exist_ok=True)
    with only_writer(out_dir) if group.leads else contextlib.nullcontext():
        loop = _Loop(task, config, out_dir, group, on_progress)
        loop.restore(resume)
        return loop.run()


class _Loop:
    """One training in this process."""

    def __init__(
        self, task: Task, config: TrainConfig, out_dir: Path, group: Group, watch: Watcher | None
    ) -> None:
        self.task, self.config, self.out_dir, self.group = task, config, out_dir, group
        self.watch, self.started = watch, time.monotonic()
        self.state = _State()
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        # Never None: Adam moves on by its momentum for a gradient of 0 but stands still for None,
        # which a parameter without gradient would have after a resume and not without one.
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.autocast == "float16")
        self.scaler.scale(torch.zeros((), device=self.device))  # makes it ready for get_scale
        # All processes take as many images, so an epoch may see the first few twice.
        self.images = math.ceil(task.sizes[0] / group.size) * group.size
        self.steps = math.ceil(self.images / config.batch)
        settings = asdict(dataclasses.replace(config, checkpoint_every=1))
        self.identity = {"processes": group.size, "settings": settings, **task.identity()}

    def restore(self, resume: bool) -> None:
        """Stand where the folder's checkpoint says, or write a first one."""
        path = self.out_dir / CHECKPOINT
        data = path.read_bytes() if self.group.leads and path.exists() else None
        if data is not None and not resume:
            raise CheckpointError(
                f"{self.out_dir} holds a training already; resume it, or choose another folder"
            )
        data = self.group.from_leader(data)
        if data is None:
            # Everyone starts from the first process's weights, also after a kill before any step.
            data = self.group.from_leader(self._encoded() if self.group.leads else None)
            if self.group.leads and data is not None:
                write_atomically(path, data)
        if data is not None and (resume or self.group.size > 1):
            self._take(decode(data, path), path)

    def run(self) -> LoopResult:
        """Epoch after epoch from where the state stands."""
        while not self._over():
            self._epoch()
        # Killed between the last checkpoint and its line of the table, a training is over without it.
        self._write_metrics()
        # The first process may still be writing what the others are about to read.
        self.group.add_up(torch.zeros(1, device=self.device))
        state = self.state
        return LoopResult(
            best_epoch=state.best_epoch,
            best_metric=state.best_metric,
            history=tuple(state.history),
            stopped_early=state.epoch < self.config.epochs,
        )

    def _over(self) -> bool:
        waited = self.state.epoch - self.state.best_epoch
        reached = self.config.goal is not None and self.state.best_metric >= self.config.goal
        return self.state.epoch >= self.config.epochs or waited >= self.config.patience or reached

    def _epoch(self) -> None:
        """The rest of the epoch the state stands in, its validation, and what is kept of it."""
        config, state = self.config, self.state
        order = np.random.default_rng([config.seed, state.epoch]).permutation(self.task.sizes[0])
        order = np.resize(order, self.images)
        self.task.module.train()
        while state.step < self.steps:
            first = state.step * config.batch
            self._step(order[first : first + config.batch].tolist())
            if state.step % config.checkpoint_every == 0 and state.step < self.steps:
                self._keep()
        self.task.module.eval()
        try:
            metrics = self.task.measure(self._scores())
        except Interrupted:
            self._keep()  # the epoch's steps are done
            raise
        state.epoch += 1
        row = {"epoch": state.epoch, "loss": state.loss_sum / self.steps, **metrics}
        state.history.append(row)
        state.step, state.loss_sum = 0, 0.0
        if metrics["metric"] > state.best_metric:
            state.best_metric, state.best_epoch = metrics["metric"], state.epoch
            if self.group.leads:
                self.task.save(self.out_dir / BEST, state.epoch, state.best_metric)
        self._keep()
        self._write_metrics()
        self._tell(state.epoch, self.steps, row["loss"], metrics)

    def _step(self, batch: list[int]) -> None:
        """One update of the weights."""
        config, state = self.config, self.state
        chance = [config.seed, state.epoch, state.step, self.group.rank]
        for part in self.optimizer.param_groups:
            part["lr"] = config.learning_rate_at(state.epoch + state.step / self.steps)
        self.optimizer.zero_grad(set_to_none=False)
        scale = float(self.scaler.get_scale())
        images = self.group.share(batch)
        try:
            loss = self.task.step(images, np.random.default_rng(chance), scale)
        except DivergedError:
            if self.group.size == 1:
                raise
            loss = math.nan  # all hear of it by the mean, so that none waits for one that left
        mean_loss = self._averaged(loss)
        self.scaler.unscale_(self.optimizer)
        most = config.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, most))
        # A norm that float16 made infinite is the scaler's business: it leaves this step out.
        if not math.isfinite(mean_loss) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            raise DivergedError(
                f"epoch {state.epoch + 1}, step {state.step + 1}: the loss is {mean_loss:g} and the "
                f"gradient's norm {norm:g}; lower the learning rate (now {config.learning_rate:g})"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        state.step += 1
        state.loss_sum += mean_loss
        self._tell(state.epoch + 1, state.step, mean_loss, None)

    def _averaged(self, loss: float) -> float:
        """Make gradients and running statistics the mean over all processes; the mean loss."""
        if self.group.size == 1:
            return loss
        shared = torch.tensor([loss], device=self.device)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.group.average([*gradients, *running_statistics(self.task.module), shared])
        return float(shared)

    def _scores(self) -> NDArray[np.float64]:
        """Scores of all validation images; each process reads its share of them."""
        count = self.task.sizes[1]
        scores_NS = torch.zeros(count, self.task.width, dtype=torch.float64, device=self.device)
        for index in self.group.share(range(count)):
            scores_NS[index] = torch.tensor(self.task.score(index), dtype=torch.float64)
        self.group.add_up(scores_NS)
        return scores_NS.cpu().numpy()

    def _write_metrics(self) -> None:
        """Make the table of epochs what the history says; one that is so already is left alone."""
        path = self.out_dir / METRICS
        lines = "".join(json.dumps(line) + "\n" for line in self.state.history).encode()
        if self.group.leads and not (path.is_file() and path.read_bytes() == lines):
            write_atomically(path, lines)

    def _keep(self) -> None:
        if self.group.leads:
            write_atomically(self.out_dir / CHECKPOINT, self._encoded())

    def _encoded(self) -> bytes:
        return encode(
            {
                "identity": self.identity,
                "state": asdict(self.state),
                "module": self.task.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )

    def _take(self, kept: dict[str, Any], path: Path) -> None:
        try:
            require_same(*_comparable(kept["identity"], self.identity), path)
            self.task.module.load_state_dict(kept["module"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.scaler.load_state_dict(kept["scaler"])
            self.state = _State(**kept["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"checkpoint {path} does not fit this training; remove it"
            ) from error
        if self.state.best_epoch and self.group.leads and not (self.out_dir / BEST).is_file():
            raise CheckpointError(
                f"{self.out_dir / BEST} is missing; start again in another folder"
            )

    def _tell(
        self, epoch: int, step: int, loss: float, metrics: Mapping[str, float] | None
    ) -> None:
        if self.watch is not None:
            seconds = time.monotonic() - self.started
            try:
                self.watch(Progress(epoch, step, self.steps, loss, metrics, seconds))
            except Interrupted:
                self._keep()
                raise


def _comparable(
    kept: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both identities without what only one of them says, where that may be so."""
    unknown = {name for name in _MAY_LACK if name not in kept or name not in now}
    before, after = ({k: v for k, v in each.items() if k not in unknown} for each in (kept, now))
    return before, after
