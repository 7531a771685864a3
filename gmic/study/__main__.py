"""`python -m gmic.study quick|full [--out FOLDER] [--run VARIANT-SEED] [--list] [--report] [--weights FILE]`.

Research use only, not for clinical use.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import torch

from gmic.errors import ConfigError, GmicError
from gmic.study.report import write_report
from gmic.study.run import baselines, run
from gmic.study.settings import study_settings
from gmic.study.ship import ship


def main(arguments: list[str] | None = None) -> int:
    """Run a study, or one run of it, or write the report of what there is; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="python -m gmic.study", description=__doc__)
    parser.add_argument("study", choices=("quick", "full"))
    parser.add_argument("--out", type=Path, help="folder of the study (default: study/<name>)")
    parser.add_argument("--run", metavar="VARIANT-SEED", help="only this run; see --list")
    parser.add_argument("--list", action="store_true", help="name the runs and end")
    parser.add_argument("--report", action="store_true", help="only write the report again")
    parser.add_argument(
        "--weights",
        type=Path,
        help="only write the weights of the best main run there",
    )
    parser.add_argument("--threads", type=int, default=2, help="of the processor (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(max(options.threads, 1))
    cv2.setNumThreads(1)
    try:
        return _study(options)
    except (GmicError, OSError) as error:
        sys.stderr.write(f"study: {error}\n")
        return 1


def _study(options: argparse.Namespace) -> int:
    settings = study_settings(options.study)
    out = options.out or Path("study") / settings.name
    runs = {f"{variant.name}-{seed}": (variant, seed) for variant, seed in settings.runs()}
    if options.list:
        sys.stdout.write("\n".join(runs) + "\n")
        return 0
    if options.run is not None and options.run not in runs:
        raise ConfigError(f"run {options.run!r}; give one of {', '.join(runs)}")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:6.0f} s] {line}\n")
        sys.stdout.flush()

    if options.weights is not None:
        card = ship(settings, out, options.weights)
        say(f"{options.weights}: {card.description} Threshold {card.segment_threshold:.2f}.")
        return 0
    if not options.report:
        say("trivial baselines")
        baselines(settings, out)
        for name in [options.run] if options.run else runs:
            say(f"run {name}")
            run(settings, *runs[name], out, say)
    page = write_report(settings, out)
    say(f"report: {page}")
    sys.stdout.write(page.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
