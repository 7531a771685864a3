"""One or more viewers that ask for frames: `python -m tests.bench.wado_client URL FRAMES ROUNDS CLIENTS`.

Prints the latencies as JSON, from sending the request to having the last byte. Runs in the network of the server.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np

COLD, WARM = "cold", "warm"
_ACCEPT = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'  # as OHIF asks


def fetch(url: str, frames: int, rounds: int, offset: int, seconds: dict[str, list[float]]) -> None:
    """Ask for each frame in so many rounds on one connection, beginning `offset` frames later than others do."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    for turn in range(rounds):
        for number in range(frames):
            path = f"{parts.path}/{(number + offset) % frames + 1}"
            started = time.perf_counter()
            connection.request("GET", path, headers={"Accept": _ACCEPT})
            answer = connection.getresponse()
            size = len(answer.read())
            took = time.perf_counter() - started
            if answer.status != 200 or size < 1000:
                raise SystemExit(f"{path}: {answer.status}, {size} bytes")
            seconds[COLD if turn == 0 else WARM].append(took)
    connection.close()


def main(url: str, frames: int, rounds: int, clients: int) -> dict[str, dict[str, float]]:
    """Milliseconds, median and 95th percentile, of the first round and of the others."""
    seconds: dict[str, list[float]] = {COLD: [], WARM: []}
    threads = [
        threading.Thread(target=fetch, args=(url, frames, rounds, n * frames // clients, seconds))
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        when: {
            "requests": len(found),
            "p50_ms": float(np.percentile(found, 50)) * 1e3,
            "p95_ms": float(np.percentile(found, 95)) * 1e3,
        }
        for when, found in seconds.items()
    }


if __name__ == "__main__":
    found = main(sys.argv[1], *map(int, sys.argv[2:]))
    expected = int(sys.argv[2]) * int(sys.argv[4])
    if found[COLD]["requests"] != expected:
        sys.exit(f"{found[COLD]['requests']:.0f} of {expected} frames came")
    sys.stdout.write(json.dumps(found))
