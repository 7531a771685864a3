"""One of several processes that train together: `torchrun ... -m workers.train_child RUN_FOLDER`.

It reads RUN/plan.json. What the worker wants stands in RUN/ask: "wait" or "stop"; the first process looks after each
step and all follow it at the same step. It ends with RUN/result.json, or with RUN/failure-RANK.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from node.processes import die_with

PLAN, ASK, RESULT, FAILURE = "plan.json", "ask", "result.json", "failure-*.json"
WAIT, STOP = "wait", "stop"
_CODES = {"": 0, WAIT: 1, STOP: 2}
_POLL_S = 0.2


def main() -> int:
    """The exit code: 0 where the training ended or was stopped."""
    # torchrun starts its processes in sessions of their own: without this they would outlive it.
    die_with(os.getppid())
    run = Path(sys.argv[1])
    from gmic.errors import Interrupted
    from workers.task import failure_of

    try:
        _train(run)
    except Interrupted:
        return 0
    except Exception as error:  # noqa: BLE001 - the boundary: what went wrong is told to the worker
        failure = failure_of(error)
        rank = os.environ.get("RANK", "0")
        (run / FAILURE.replace("*", rank)).write_text(json.dumps(vars(failure)))
        return 1
    return 0


def _train(run: Path) -> None:
    import torch

    from gmic.inference import choose_device
    from gmic.train.checkpoint import write_atomically
    from gmic.train.distributed import Group, joined, local_device
    from workers.train_stages import Plan, run_plan

    plan = Plan(**json.loads((run / PLAN).read_text()))
    device = choose_device(local_device(plan.device))

    def between(group: Group) -> None:
        """All wait, or all stop, at the same step."""
        from gmic.errors import Interrupted

        while True:
            said = torch.tensor([float(_asked(run)) if group.leads else 0.0], device=device)
            group.add_up(said)
            if int(said) == _CODES[STOP]:
                raise Interrupted("the worker wants an end")
            if int(said) != _CODES[WAIT]:
                return
            time.sleep(_POLL_S)

    with joined(device) as group:
        weights = run_plan(plan, group, lambda _progress: between(group), _pausing(run))
        if group.leads:
            write_atomically(run / RESULT, json.dumps({"weights": str(weights)}).encode())


def _pausing(run: Path) -> Callable[[], None]:
    """For the images of a validation, of which the processes have different numbers: each waits by itself."""

    def check() -> None:
        while _asked(run) == _CODES[WAIT]:
            time.sleep(_POLL_S)

    return check


def _asked(run: Path) -> int:
    try:
        return _CODES.get((run / ASK).read_text(), 0)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
