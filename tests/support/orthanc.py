"""Orthanc as sender and as destination, in a network of its own, because it listens on every interface.

Run inside `loopback()` as `python -m tests.support.orthanc FOLDER`: starts Orthanc and a listener, sends both ways, and
prints what arrived where as JSON. Nothing outside the namespace can reach either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from node import scu, stow
from node.blobs import BlobStore
from node.deliveries import Answer, Destination, Parcel
from tests.conftest import make_settings
from tests.support.listening import running, stored
from tests.support.objects import data_set_bytes, write_object
from tests.support.services import wait_until

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_DICOM, _HTTP, _NODE = 4242, 8042, 11112
_URL = f"http://127.0.0.1:{_HTTP}"


@contextmanager
def orthanc(folder: Path) -> Iterator[httpx.Client]:
    """A running Orthanc and a client for its REST API."""
    folder.mkdir()
    config = {
        "Name": "orthanc",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomPort": _DICOM,
        "HttpPort": _HTTP,
        "AuthenticationEnabled": False,
        "DicomModalities": {"node": ["TOMONODE", "127.0.0.1", _NODE]},
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    client = httpx.Client(base_url=_URL, trust_env=False, timeout=30)
    try:
        wait_until(lambda: _answers(client), 30, "Orthanc to answer")
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.HTTPError:
        return False


def main(folder: Path) -> dict[str, object]:
    """Send to Orthanc by C-STORE and by STOW-RS, and from it to the node; what was answered and what arrived."""
    folder.mkdir()
    settings = make_settings(folder / "node", listen_port=_NODE)
    by_dicom, by_web = _objects(folder / "dicom"), _objects(folder / "web")
    sent = {parcel.sop_uid: data_set_bytes(path.read_bytes()) for parcel, path in by_dicom + by_web}
    dicom = Destination("orthanc", "DICOM", "ORTHANC", "127.0.0.1", _DICOM, None)
    web = Destination("orthanc", "STOW", None, None, None, f"{_URL}/dicom-web")
    with orthanc(folder / "orthanc") as client, running(settings):
        echoes = [scu.echo(dicom, settings), stow.echo(web, settings)]
        answers = scu.store(dicom, by_dicom, settings) + stow.store(web, by_web, settings)
        again = scu.store(dicom, by_dicom, settings) + stow.store(web, by_web, settings)
        ids = client.get("/instances").json()
        files = [client.get(f"/instances/{one}/file").content for one in ids]
        pushed = client.post("/modalities/node/store", json=ids).json()
        kept = stored(settings)
    store = BlobStore(settings.blob_root, settings.spool)
    came = {uid: data_set_bytes(store.path(digest).read_bytes()) for uid, digest in kept.items()}
    return {
        "echoes": len(echoes),
        "answers": _told(answers),
        "again": _told(again),
        "in_orthanc": sorted(data_set_bytes(file) for file in files) == sorted(sent.values()),
        "failed": pushed["FailedInstancesCount"],
        "in_node": came == sent,
    }


def _objects(folder: Path) -> list[tuple[Parcel, Path]]:
    folder.mkdir()
    made = []
    for number in range(3):
        path = folder / f"{number}.dcm"
        dataset = write_object(path)
        parcel = Parcel(uuid.uuid4(), dataset.SOPInstanceUID, dataset.SOPClassUID, "ab" * 32)
        made.append((parcel, path))
    return made


def _told(answers: list[Answer]) -> list[tuple[bool, str]]:
    return [(answer.accepted, answer.status) for answer in answers]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
