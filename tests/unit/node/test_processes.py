"""Signals of a child process."""

from __future__ import annotations

import subprocess
import sys


def test_a_signal_inside_the_wait_for_it_does_not_hang() -> None:
    """The handler's own lock is what the interrupted `wait` holds; many short waits meet that moment soon."""
    program = (
        "import os, signal, threading\n"
        "from node import processes\n"
        "stop = threading.Event()\n"
        "processes.stop_on_signals(stop)\n"
        "timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))\n"
        "timer.start()\n"
        "while not stop.wait(0): pass\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
        assert done.returncode == 0
