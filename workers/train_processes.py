"""Several processes that train together, seen from the worker that started them by torchrun."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from gmic.train.checkpoint import write_atomically
from node import processes
from node.errors import DiskFull
from node.runs import Failure
from workers.errors import Preempted, ProcessFailed, ProcessLost
from workers.train_child import ASK, FAILURE, PLAN, RESULT, STOP, WAIT
from workers.train_stages import Plan
from workers.train_watch import POLL_S, Watch


def run_together(
    plan: Plan, watch: Watch, keep_epochs: Callable[[], None], environment: Mapping[str, str]
) -> Path:
    """Train in the recipe's number of processes; the file with the weights. Call it in the main thread.

    Args:
        plan: What to do.
        watch: What is asked between batches; here it is asked all the time, and the processes obey between batches.
        keep_epochs: Called now and then.
        environment: Of the processes.

    Raises:
        Preempted, LeaseLost, OverLimit: by `watch`, once the processes have ended.
        ProcessFailed, ProcessLost, DiskFull: a process failed or died; the others are ended.
    """
    run, count = Path(plan.run), plan.recipe.processes
    for path in (run / RESULT, run / ASK, *run.glob(FAILURE)):
        path.unlink(missing_ok=True)
    write_atomically(run / PLAN, json.dumps(asdict(plan)).encode())
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(count), "-m", "workers.train_child", str(run)),
    ]
    child = processes.start(command, environment, run / "processes.log")
    wish: Preempted | None = None
    try:
        while (code := child.exit_code()) is None:
            keep_epochs()
            if wish is None:
                wish = _obey(run, watch)
            else:
                watch.lease()
                time.sleep(POLL_S)
    finally:
        child.end()
    keep_epochs()
    if (run / RESULT).exists():
        return Path(json.loads((run / RESULT).read_text())["weights"])
    if wish is not None and code == 0:
        raise wish
    raise _why(run, count, code)


def _obey(run: Path, watch: Watch) -> Preempted | None:
    """Hand on to the processes what is wanted now; the wish to stop is given back, to be raised at their end."""
    try:
        waits = watch.must_wait()
    except Preempted as wish:
        _ask(run, STOP)
        return wish
    if waits:
        _ask(run, WAIT)
        watch.clock.wait(POLL_S)
    else:
        (run / ASK).unlink(missing_ok=True)
        time.sleep(POLL_S)
    return None


def _ask(run: Path, word: str) -> None:
    write_atomically(run / ASK, word.encode())


def _why(run: Path, count: int, code: int) -> Exception:
    """What ended the processes: the cause, rather than what the others say of a lost partner."""
    found = [Failure(**json.loads(path.read_text())) for path in sorted(run.glob(FAILURE))]
    cause = next((one for one in found if one.code != "TrainingError"), None)
    if cause is None:
        ending = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return ProcessLost(
            f"one of {count} processes died ({ending}); see processes.log of the training"
        )
    if cause.outage:
        return DiskFull(cause.message)
    return (ProcessLost if cause.transient else ProcessFailed)(cause.message)
