"""How long a viewer waits for a frame (WADO-RS): the node beside Orthanc, the same objects in one private network.

Both servers store the objects by STOW-RS and are started again. `cold` is the first time that each frame is asked for
after that (what the operating system keeps in memory stays warm), `warm` every time after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gmic.phantom import make_phantom, study_plan
from node import schema
from node.config import child_environment
from tests.conftest import make_settings
from tests.support import orthanc_server
from tests.support.breast_objects import BITS, encode, view_file, with_frames
from tests.support.loopback import Loopback, loopback
from tests.support.modules import module_server, run_module
from tests.support.node_process import free_port
from tests.support.orthanc_server import orthanc

Say = Callable[[str], None]
Opener = Callable[[Loopback, Path], AbstractContextManager[str]]
_SYNTAXES = {"uncompressed": "", "JPEG 2000": "1.2.840.10008.1.2.4.90"}
CLIENTS = (1, 4)


@contextmanager
def tomonode(network: Loopback, folder: Path) -> Iterator[str]:
    """`tomonode web`; the root of its DICOMweb services."""
    settings = make_settings(folder / "home", web_port=free_port())
    settings.home.mkdir(parents=True, exist_ok=True)
    schema.upgrade(settings.db_url)
    url = f"http://127.0.0.1:{settings.web_port}"
    words = ["workers.cli", "web"]
    with module_server(
        network, words, f"{url}/static/style.css", folder / "web.log", child_environment(settings)
    ):
        yield f"{url}/dicom-web"


@contextmanager
def orthanc_web(network: Loopback, folder: Path) -> Iterator[str]:
    """Orthanc with its DICOMweb plug-in and its defaults."""
    with orthanc(network, folder) as server:
        yield server.dicom_web_url


SERVERS: dict[str, Opener] = {"tomonode": tomonode, "Orthanc": orthanc_web}


def measure(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """Latencies by server, stored form and number of clients; what cannot run here is left out with the reason."""
    frames, rounds = (4, 3) if quick else (12, 6)
    found: dict[str, Any] = {"frames": frames, "rounds": rounds, "rows": [], "left_out": {}}
    objects = {name: _object(folder / name, syntax, frames) for name, syntax in _SYNTAXES.items()}
    found["frame_mb"] = 2457 * 1890 * 2 / 1e6
    try:
        with loopback() as network:
            for name, opener in SERVERS.items():
                try:
                    if name == "Orthanc":
                        orthanc_server.program()
                    found["rows"] += _rows(network, folder / name, name, opener, objects, rounds, say)  # fmt: skip
                except pytest.skip.Exception as reason:
                    found["left_out"][name] = str(reason)
    except pytest.skip.Exception as reason:
        found["left_out"]["all"] = str(reason)
    return found


def _object(folder: Path, syntax: str, frames: int) -> Path:
    [spec] = study_plan(
        2, (frames, 2457, 1890), ["L-CC"], lesion_breast=None, kind="malignant", spacing_mm=0.1, slice_mm=1.0
    )  # fmt: skip
    volume_DHW = make_phantom(spec).volume_DHW
    volume_DHW >>= max(0, int(volume_DHW.max()).bit_length() - BITS)
    path = view_file(folder, volume_DHW=volume_DHW)
    return with_frames(path, [encode(f, syntax) for f in volume_DHW], syntax) if syntax else path


def _rows(
    network: Loopback, folder: Path, name: str, opener: Opener, objects: dict[str, Path],
    rounds: int, say: Say,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    folder.mkdir()
    for form, path in objects.items():
        place = folder / form
        place.mkdir()
        with opener(network, place / "server") as url:
            run_module(network, "tests.support.dicomweb_peer", url, str(path))
        header = dcmread(path, stop_before_pixels=True)
        address = (
            f"/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}"
            f"/instances/{header.SOPInstanceUID}/frames"
        )
        for clients in CLIENTS:
            say(f"wado: {name}, {form}, {clients} at a time")
            with opener(network, place / "server") as url:
                asked = [url + address, str(int(header.NumberOfFrames)), str(rounds), str(clients)]
                said = json.loads(run_module(network, "tests.bench.wado_client", *asked))
            for when, figures in said.items():
                yield {"server": name, "stored": form, "clients": clients, "when": when, **figures}
