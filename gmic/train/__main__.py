"""`python -m gmic.train fit | pretrain | pipeline | search`; alone, or several at once under torchrun.

Research use only, not for clinical use. A failure is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, DataError, GmicError, WeightsError
from gmic.inference import choose_device
from gmic.model import GMIC3D
from gmic.train import pipeline
from gmic.train.data import FolderSet
from gmic.train.distributed import TIMEOUT_S, Group, joined, local_device
from gmic.train.initialise import initialise
from gmic.train.pretrain import (
    PretrainConfig,
    Pretrainer,
    PretrainResult,
    load_pretrained,
    pretrain,
    transfer,
)
from gmic.train.search import RANGES_2D, RANGES_3D, SearchConfig, Subject, search
from gmic.train.settings import TrainConfig, replaced
from gmic.train.task import Progress
from gmic.train.trainer import TrainResult, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.threads is not None:
            if args.threads < 1:
                raise ConfigError(f"threads is {args.threads}; it must be at least 1")
            torch.set_num_threads(args.threads)
        device = choose_device(local_device(args.device))
        with joined(device, args.timeout) as group:
            args.run(args, device.type if device.index is None else str(device), group)
    except (GmicError, OSError) as error:
        return _fail(str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _fail(f"out of memory: {error}; use bfloat16, fewer patches or a smaller batch")
    except KeyboardInterrupt:
        _fail("stopped; go on with --resume")
        return 130
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"gmic.train: {message.strip().splitlines()[0]}\n")
    return 2


def _fit(args: argparse.Namespace, device: str, group: Group) -> None:
    start = _start(args.start)
    config = _model_config(args, start)
    training = _settings(args)
    model = _model(config, training.seed, args.omega, start)
    sets = _sets(args.data, config, args)
    result = train(
        model.to(device),
        *sets,
        training,
        args.out,
        resume=args.resume,
        group=group,
        on_progress=_speaker(group),
        # A whole model brings its saliency layer along.
        omega=None if isinstance(start, GMIC3D) else args.omega,
    )
    _say_best(group, result)


def _pretrain(args: argparse.Namespace, device: str, group: Group) -> None:
    start = _start(args.start)
    config = _model_config(args, start)
    training = _settings(args)
    what = PretrainConfig(args.pooling, args.target, args.birads_classes)
    net = Pretrainer(config, what)
    net.initialise(training.seed)
    if start is not None:
        transfer(start, net)
    sets = _sets(args.data, config, args)
    result = pretrain(
        net.to(device),
        *sets,
        training,
        args.out,
        resume=args.resume,
        group=group,
        on_progress=_speaker(group),
    )
    _say_best(group, result)


def _pipeline(args: argparse.Namespace, device: str, group: Group) -> None:
    given = _json(args.recipe) if args.recipe else {}
    recipes = {}
    for name, default in pipeline.RECIPES.items():
        recipes[name] = replaced(default, given.pop(name, {}), name)
    if given:
        raise ConfigError(f"{args.recipe} has {sorted(given)[0]!r}; known: {', '.join(recipes)}")
    there = [name for name in recipes if (args.data / name).is_dir()]
    pipeline.stages_for(there)
    data = {name: _sets(args.data / name, recipes[name].model, args) for name in there}
    found = pipeline.run_pipeline(
        data,
        recipes,
        args.out,
        device=device,
        resume=args.resume,
        group=group,
        on_progress=lambda stage, progress: _speak(group, f"{stage.name}: ", progress),
    )
    for name, path in found.items():
        _say(group, f"{name}: weights {path}")


def _search(args: argparse.Namespace, device: str, group: Group) -> None:
    start = _start(args.start)
    if isinstance(start, GMIC3D):
        raise WeightsError(f"{args.start} holds a whole model; a search starts from a pre-training")
    config = _model_config(args, start)
    training = _settings(args)
    train_set, valid_set = _sets(args.data, config, args)
    ranges = RANGES_2D if args.two_d else RANGES_3D
    if args.ranges:
        ranges = replaced(ranges, _json(args.ranges), "ranges")
    best = search(
        Subject(config, train_set, valid_set, training, start, device),
        SearchConfig(ranges, args.trials, args.keep, training.seed),
        args.out,
        resume=args.resume,
        group=group,
        on_progress=_speaker(group),
    )
    for path in best:
        _say(group, f"kept {path}")


def _sets(
    folder: Path, config: GMIC3DConfig, args: argparse.Namespace
) -> tuple[FolderSet, FolderSet]:
    """Training and validation images, every voxel looked at unless told not to."""
    sets = tuple(FolderSet(folder, split, config.window_shape) for split in ("train", "valid"))
    if not args.trust_data:
        problems = [line for images in sets for line in images.problems()]
        if problems:
            more = f" (and {len(problems) - 1} more bad files)" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)
    return sets[0], sets[1]


def _start(path: Path | None) -> GMIC3D | Pretrainer | None:
    """What a training starts from: a pre-training, or a whole model."""
    if path is None:
        return None
    try:
        return load_pretrained(path)
    except WeightsError:
        return weights.load(path)[0]


def _model(
    config: GMIC3DConfig, seed: int, omega: float, start: GMIC3D | Pretrainer | None
) -> GMIC3D:
    model = GMIC3D(config)
    initialise(model, seed, omega)
    if start is not None:
        transfer(start, model)
    return model


def _model_config(args: argparse.Namespace, start: GMIC3D | Pretrainer | None) -> GMIC3DConfig:
    """The model: the start's, or the published one, with the fields of `--model` replaced."""
    default = GMIC3DConfig()
    if start is not None:
        default = start.config if isinstance(start, GMIC3D) else start.model_config
    config = replaced(default, _json(args.model), "model") if args.model else default
    parts = getattr(args, "parts", None)
    return config if parts is None else dataclasses.replace(config, parts=parts)


def _settings(args: argparse.Namespace) -> TrainConfig:
    given = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(TrainConfig)}
    changes = {name: value for name, value in given.items() if value is not None}
    start = getattr(args, "start", None)
    if start is not None:
        changes["start"] = f"{start.stem} {hashlib.sha256(start.read_bytes()).hexdigest()[:16]}"
    return TrainConfig(**changes)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds no JSON object; give one")
    return dict(values)


def _speaker(group: Group) -> Callable[[Progress], None]:
    return lambda progress: _speak(group, "", progress)


def _speak(group: Group, prefix: str, progress: Progress) -> None:
    """A line for each epoch."""
    if progress.metrics is not None:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items())
        _say(group, f"{prefix}epoch {progress.epoch}: loss {progress.loss:.4f}, {figures}")


def _say(group: Group, line: str) -> None:
    if group.leads:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _say_best(group: Group, result: TrainResult | PretrainResult) -> None:
    best = f"best epoch {result.best_epoch}: AUC {result.best_metric:.4f}"
    _say(group, f"{best}; weights {result.weights}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gmic.train", description="Train 3D-GMIC. Research use only, not for clinical use."
    )
    commands = parser.add_subparsers(required=True)
    for name, run, text in (
        ("fit", _fit, "train a model"),
        ("pretrain", _pretrain, "pre-train the global network on labels of images"),
        ("search", _search, "random search over hyper-parameters"),
        ("pipeline", _pipeline, "pre-training and models of all modalities"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        _common(command)
        if name == "pipeline":
            command.add_argument(
                "--recipe", type=Path, help="JSON: {modality: {fields to replace}}"
            )
            continue
        command.add_argument("--model", type=Path, help="JSON: fields of the model to replace")
        command.add_argument("--start", type=Path, help="weights to start from")
        _setting_flags(command)
        if name in ("fit", "search"):
            command.add_argument("--parts", help="all, or global: no local module (VII-B)")
        if name == "fit":
            command.add_argument("--omega", type=float, default=0.003, help="saliency constant")
        if name == "pretrain":
            command.add_argument("--pooling", default="attention", help="attention or max")
            command.add_argument("--target", default="birads", help="birads or labels")
            command.add_argument("--birads-classes", type=int, default=3)
        if name == "search":
            command.add_argument("--trials", type=int, default=40)
            command.add_argument("--keep", type=int, default=5)
            command.add_argument("--2d", dest="two_d", action="store_true", help="ranges for 2D")
            command.add_argument("--ranges", type=Path, help="JSON: ranges to replace")
    return parser


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, help="folder with an index")
    command.add_argument("--out", type=Path, required=True, help="folder for the results")
    command.add_argument("--resume", action="store_true", help="go on where it was killed")
    command.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    command.add_argument("--threads", type=int, help="CPU threads")
    command.add_argument("--timeout", type=float, default=TIMEOUT_S, help="wait for others (s)")
    command.add_argument("--trust-data", action="store_true", help="do not read all images first")


def _setting_flags(command: argparse.ArgumentParser) -> None:
    """A flag for each field of `TrainConfig`."""
    for f in dataclasses.fields(TrainConfig):
        flag = "--" + f.name.replace("_", "-")
        if f.name == "start":
            continue
        if isinstance(f.default, bool):
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            kind = float if f.default is None else type(f.default)
            command.add_argument(flag, type=kind, help=f"default {f.default}")


if __name__ == "__main__":
    sys.exit(main())
