"""Receiving: MB/s, objects/s and memory of the listener, beside the other receivers on this machine."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench.receivers import RECEIVERS, PeakMemory, Receiver
from tests.support.loopback import Loopback, loopback
from tests.support.objects import write_large, write_object

SENDERS = 4


@dataclass(frozen=True)
class Plan:
    """How much is sent: `rounds` single objects of `large_bytes`, and `small` small ones."""

    rounds: int
    small: int
    large_bytes: int


Say = Callable[[str], None]


def measure(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """Every receiver in turn; one large object a few times (the median), the others once.

    Returns:
        Rows by receiver, and what was left out with the reason.
    """
    plan = Plan(1, 100, 102_000_000) if quick else Plan(3, 500, 306_000_000)
    rows: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        try:
            network = stack.enter_context(loopback())
        except pytest.skip.Exception as reason:
            return {"rows": {}, "left_out": {"all receivers": str(reason)}}
        for name, opener in RECEIVERS.items():
            here = folder / name.split()[0].replace("+", "")
            here = here.with_name(f"{here.name}-{len(rows)}")
            here.mkdir()
            try:
                with opener(network, here) as receiver:
                    say(f"receive: {name}")
                    rows[name] = _figures(network, receiver, here / "files", plan)
            except pytest.skip.Exception as reason:
                left_out[name] = str(reason)
            shutil.rmtree(here)
    return {
        "rows": rows,
        "left_out": left_out,
        "large_bytes": plan.large_bytes,
        "small_objects": plan.small,
        "disk_mb_s": statistics.median(
            _disk(folder / "disk", plan.large_bytes) for _ in range(plan.rounds)
        ),
    }


def _disk(path: Path, size: int) -> float:
    """MB/s of writing as many bytes to this disk and flushing them: what a durable receiver cannot pass."""
    chunk = os.urandom(1 << 20)
    started = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // len(chunk)):
            file.write(chunk)
        os.fsync(file.fileno())
    seconds = time.monotonic() - started
    path.unlink()
    return size / 1e6 / seconds


def _figures(network: Loopback, receiver: Receiver, folder: Path, plan: Plan) -> dict[str, float]:
    _send(network, receiver, [_files(folder / "warm", 1, write_object)])
    large = partial(write_large, pixel_bytes=plan.large_bytes)
    megabytes = plan.large_bytes / 1e6
    ones, one_peaks = [], []
    for number in range(plan.rounds):
        files = _files(folder / f"one-{number}", 1, large)
        with PeakMemory(receiver) as memory:
            ones.append(megabytes / _send(network, receiver, [files]))
        one_peaks.append(memory.above_idle / 1e6)
    four = [_files(folder / f"four-{n}", 1, large) for n in range(SENDERS)]
    with PeakMemory(receiver) as memory:
        together = SENDERS * megabytes / _send(network, receiver, four)
    many = _files(folder / "many", plan.small, write_object)
    return {
        "one_mb_s": statistics.median(ones),
        "one_mb_s_lowest": min(ones),
        "one_mb_s_highest": max(ones),
        "one_peak_mb": max(one_peaks),
        "four_mb_s": together,
        "four_peak_mb": memory.above_idle / 1e6,
        "small_per_s": plan.small / _send(network, receiver, [many]),
    }


def _files(folder: Path, count: int, write: Callable[[Path], object]) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for path in paths:
        write(path)
    return paths


def _send(network: Loopback, receiver: Receiver, groups: Sequence[Sequence[Path]]) -> float:
    """Send each group from a process of its own, all at once; seconds from the start to the last answer."""
    senders = [
        subprocess.Popen(
            [
                *(*network.command, sys.executable, "-m", "tests.bench.sender"),
                *(str(receiver.port), receiver.ae_title, *map(str, group)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for group in groups
    ]
    try:
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        started = time.monotonic()
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write("\n")
            sender.stdin.flush()
        for sender in senders:
            assert sender.stdout is not None
            assert float(sender.stdout.readline()) > 0
        return time.monotonic() - started
    finally:
        for sender in senders:
            sender.communicate(timeout=120)
