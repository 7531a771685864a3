"""dcmtk's image archive, dcmqrscp: a PACS that answers C-FIND and C-MOVE, inside a private network."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.dcmtk import ENVIRONMENT, program
from tests.support.loopback import Loopback
from tests.support.node_process import free_port
from tests.support.services import wait_until

AE_TITLE = "QRSCP"


@contextmanager
def dcmqrscp(
    network: Loopback, folder: Path, destinations: Mapping[str, int], files: Sequence[Path]
) -> Iterator[int]:
    """A running dcmqrscp that has these files; its port.

    Args:
        network: where it listens.
        folder: for its configuration and files; made.
        destinations: AE title -> loopback port of whom it may send to.
        files: are sent to it.
    """
    path, port = program("dcmqrscp"), free_port()
    store = folder / "store"
    store.mkdir(parents=True)
    hosts = "\n".join(
        f"host{number} = ({title}, 127.0.0.1, {where})"
        for number, (title, where) in enumerate(destinations.items())
    )
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{AE_TITLE} {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    log = folder / "dcmqrscp.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*network.command, path, "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    address = ["-aec", AE_TITLE, "127.0.0.1", str(port)]
    try:
        echo = [*network.command, program("echoscu"), *address]
        wait_until(
            lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0,
            30,
            "dcmqrscp",
        )
        send = [*network.command, program("storescu"), "-R", *address, *map(str, files)]
        sent = subprocess.run(send, capture_output=True, env=ENVIRONMENT, check=False)
        assert sent.returncode == 0, sent.stderr.decode()
        yield port
    finally:
        process.kill()
        process.wait()
