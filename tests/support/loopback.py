"""A network that holds one loopback interface and nothing else.

Orthanc and dcmtk's storescp listen on every interface and know no setting against it. Here they do so where nobody
from outside can reach them; whatever talks to them runs here too. Needs Linux and util-linux, and no root where the
kernel grants user namespaces. The network is gone when its last process is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# SIOCSIFFLAGS with IFF_UP; then nothing until the caller lets go of standard input, or dies.
_HOLD = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
print("up", flush=True)
sys.stdin.read()
"""

_REQUEST = """
import sys, urllib.error, urllib.request
method, url, kind = sys.argv[1:]
body = sys.stdin.buffer.read() or None
asked = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind})
try:
    with urllib.request.urlopen(asked, timeout=120) as answer:
        sys.stdout.buffer.write(answer.read())
except urllib.error.URLError as error:
    reason = error.read().decode(errors="replace") if hasattr(error, "read") else ""
    sys.exit(f"{method} {url}: {error} {reason}")
"""


class RequestFailed(Exception):
    """An HTTP request inside the network got no answer, or one that is no success."""


class Loopback:
    """The running network; `command` in front of a program's words runs it inside, and kills it with its parent."""

    def __init__(self, holder: int) -> None:
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        enter = ("nsenter", "--target", str(holder), *user, "--net")
        self.command = (*enter, "setpriv", "--pdeathsig", "KILL")

    def request(
        self, method: str, url: str, body: bytes = b"", content_type: str = "application/json"
    ) -> bytes:
        """Make an HTTP request inside; the body of the answer.

        Raises:
            RequestFailed: no connection, or a status that is no success.
        """
        done = subprocess.run(
            [*self.command, sys.executable, "-I", "-c", _REQUEST, method, url, content_type],
            input=body,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RequestFailed(done.stderr.decode(errors="replace").strip())
        return done.stdout


def missing_tools() -> str | None:
    """Why a private network cannot be made here at all, None where its programs are there."""
    for tool in ("unshare", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed; apt-get install util-linux"
    return None


@contextmanager
def loopback() -> Iterator[Loopback]:
    """A private network for the duration of the block; skips the test, with the reason, where it cannot be made."""
    if reason := missing_tools():
        pytest.skip(reason)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    holder = subprocess.Popen(
        ["unshare", *user, "--net", sys.executable, "-I", "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"up\n":
            said = holder.stderr.read().decode(errors="replace").strip()
            pytest.skip(f"no network of its own may be made here ({said}); run as root")
        yield Loopback(holder.pid)
    finally:
        holder.communicate()
