"""The administrator of the training demonstration: `tomonode` commands as a script calls them, and their answers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from node.cli import output
from node.config import Settings, child_environment
from node.lifecycle import TrainingState
from workers.demo_watch import FINAL
from workers.errors import DemoFailed

_LEAST_S, _MOST_S = 2, 8  # a command is a program of its own: asked less often the longer it takes
_STILL_S = 30.0  # without a change, a line says so
_DYING_WITH = (
    "import sys; from node.processes import die_with; die_with(int(sys.argv.pop(1)));"
    " from workers.cli import main; main()"
)
"""`tomonode` that dies with the process of this number. It sees to that itself: with a `preexec_fn`, Python forgets the
KeyboardInterrupt of a signal that comes just while it forks."""
_ENDED = frozenset({TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.CANCELLED})


@dataclass(frozen=True)
class Answer:
    """What a command answered: exit code, the JSON it printed (None where it printed none), its last complaint."""

    code: int
    value: Any
    complaint: str


class Admin:
    """Calls commands with `--json`, each a process of its own; what it calls is shown."""

    def __init__(self, settings: Settings) -> None:
        self._environment = child_environment(settings)
        self._log = settings.home / "log" / "admin.log"

    def __call__(self, *arguments: str | Path, allowed: Collection[int] = (0,)) -> Answer:
        """Call a command and show the call.

        Args:
            arguments: Without `--json`.
            allowed: Exit codes that are no failure.

        Raises:
            DemoFailed: another exit code.
        """
        output.say(f"$ tomonode {shlex.join(map(str, arguments))}")
        return self.quietly(*arguments, allowed=allowed)

    def quietly(self, *arguments: str | Path, allowed: Collection[int] = (0,)) -> Answer:
        """The same, not shown: for what is asked again and again."""
        done = subprocess.run(
            [sys.executable, "-c", _DYING_WITH, str(os.getpid()), *map(str, arguments), "--json"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        said = done.stderr.decode(errors="replace")
        with self._log.open("a", encoding="utf-8") as log:
            log.write(said)
        complaint = (said.strip().splitlines() or [""])[-1].removeprefix("tomonode: ")
        answer = Answer(done.returncode, _json(done.stdout), complaint)
        if answer.code not in allowed or (answer.code == 0 and answer.value is None):
            raise DemoFailed(
                f"tomonode {' '.join(map(str, arguments[:2]))} failed; exit code {answer.code};"
                f" {complaint or 'it said nothing'}; see {self._log}"
            )
        return answer


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _pauses() -> Callable[[], None]:
    """Sleeps that get longer."""
    lengths = chain(range(_LEAST_S, _MOST_S), repeat(_MOST_S))
    return lambda: time.sleep(next(lengths))


def wait_for_studies(
    admin: Admin, study_uids: Collection[str], check: Callable[[], None], limit_s: float
) -> None:
    """Wait until every study was read and its results arrived, with a line now and then.

    Raises:
        DemoFailed: one failed, or not all are through in time.
    """
    started = spoke = time.monotonic()
    shown: Mapping[str, int] = {}
    pause = _pauses()
    while True:
        check()
        rows = admin.quietly("study", "list", "--limit", "1000").value
        words = [row["status"] for row in rows if row["study_uid"] in study_uids]
        elapsed, counts = time.monotonic() - started, Counter(words)
        if bad := counts.keys() & (FINAL - {"delivered"}):
            raise DemoFailed(f"{counts[min(bad)]} studies {min(bad)}; see the node's logs")
        if counts["delivered"] == len(study_uids):
            output.say(f"{elapsed:6.1f} s  all {len(study_uids)} delivered")
            return
        if elapsed > limit_s:
            raise DemoFailed(f"not through after {limit_s:.0f} s; see the node's logs")
        if counts != shown and time.monotonic() - spoke > _STILL_S / 3:
            spoke, shown = time.monotonic(), counts
            said = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
            output.say(f"{elapsed:6.1f} s  {said} of {len(study_uids)}")
        pause()


def follow_training(
    admin: Admin, training: str, check: Callable[[], None], limit_s: float
) -> dict[str, Any]:
    """Wait until a training ended, with a line an epoch; what `tomonode train show` says of it then.

    Raises:
        DemoFailed: it failed, or does not end in time.
    """
    started = spoke = time.monotonic()
    shown, state = 0, ""
    pause = _pauses()
    while True:
        check()
        page: dict[str, Any] = admin.quietly("train", "show", training).value
        elapsed, row = time.monotonic() - started, page["row"]
        for epoch in page["epochs"][shown:]:
            spoke = time.monotonic()
            figures = ", ".join(
                f"{name} {v:.3f}" for name, v in sorted(epoch["metrics"].items()) if name != "epoch"
            )
            output.say(
                f"{elapsed:6.1f} s  epoch {epoch['epoch']}: {figures}, {epoch['seconds']:.0f} s"
            )
        shown = len(page["epochs"])
        if row["state"] != state or time.monotonic() - spoke > _STILL_S:
            state, spoke = row["state"], time.monotonic()
            output.say(f"{elapsed:6.1f} s  {state.lower()}{'; ' if row['why'] else ''}{row['why']}")
        if state in _ENDED:
            break
        if elapsed > limit_s:
            raise DemoFailed(f"the training did not end in {limit_s:.0f} s; see its log")
        pause()
    if state != TrainingState.SUCCEEDED or row["model"] is None:
        raise DemoFailed(f"the training ended {state}; {row['why']}")
    return page
