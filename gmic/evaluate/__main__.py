"""`python -m gmic.evaluate`: weights and a folder of windows in, scores and a report out.

Research use only, not for clinical use. A failure is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import torch

from gmic import bundle
from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, GmicError
from gmic.evaluate.folder_run import FolderPlan, evaluate_folder
from gmic.inference import ENGINES, Predictor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation; its exit code."""
    args = _parser().parse_args(arguments)
    plan = FolderPlan(args.data, args.split, args.draws, args.trust_data, args.pictures)
    try:
        if (args.percent_t or args.num_patches) and all(map(bundle.is_ours, args.weights)):
            raise ConfigError(
                f"{args.weights[0]} has a card with its own values; leave out --percent-t and --num-patches"
            )
        found = bundle.load_all(args.weights, lambda: _configurations(args))
        predictors = [
            Predictor(
                model, each.info, device=args.device, threads=args.threads, engine=args.engine
            )
            for each in found
            for model in each.models
        ]
        model = bundle.called(found) + (f", {args.draws} draws" if args.draws else "")
        model += f", engine {args.engine}" if args.engine != "exact" else ""
        files = evaluate_folder(plan, predictors, args.out, model=model, say=_say)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror or error}; check the path")
    except (GmicError, MemoryError, torch.OutOfMemoryError) as error:
        return _fail(str(error) or "out of memory")
    except KeyboardInterrupt:
        _fail("stopped; nothing was written")
        return 130
    _say(f"report in {files[1]}; figures in {files[0]}")
    return 0


def _configurations(args: argparse.Namespace) -> list[GMIC3DConfig]:
    """Of published checkpoints: the paper's for one, those given for several."""
    count, plain = len(args.weights), GMIC3DConfig()
    top_t = args.percent_t or ([plain.top_t_fraction] if count == 1 else [])
    patches = args.num_patches or ([plain.num_patches] if count == 1 else [])
    for name, values in (("--percent-t", top_t), ("--num-patches", patches)):
        if len(values) not in (1, count):
            raise ConfigError(
                f"{name} has {len(values)} values for {count} published checkpoints; "
                "give one for all, or one a file"
            )
    return [
        GMIC3DConfig(top_t_fraction=t, num_patches=k)
        for t, k, _ in zip(cycle(top_t), cycle(patches), args.weights, strict=False)
    ]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stderr.write(f"gmic.evaluate: {message.strip().splitlines()[0]}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gmic.evaluate",
        description="Measure 3D-GMIC on a folder of windows. Research use only, not for clinical use.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with an index, as for training")
    add("--split", default="test", help="rows of the index that are read; default test")
    add(
        "--weights",
        type=Path,
        nargs="+",
        required=True,
        help="files, or published checkpoints; averaged",
    )
    add("--percent-t", type=float, nargs="+", help="t of published checkpoints, one or one a file")
    add("--num-patches", type=int, nargs="+", help="K of published checkpoints, likewise")
    add("--out", type=Path, required=True, help="folder for scores.csv and the report")
    add("--draws", type=int, default=0, help="random augmentations an image; the paper's 10")
    add("--engine", choices=ENGINES, default="exact", help="bfloat16 moves results a little")
    add("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    add("--threads", type=int, help="CPU threads")
    add("--trust-data", action="store_true", help="do not read all images first")
    pictures = argparse.BooleanOptionalAction
    add("--pictures", action=pictures, default=True, help="show saliency of some images")
    return parser


if __name__ == "__main__":
    sys.exit(main())
