"""Orthanc with its DICOMweb plug-in: a real PACS, as sender and as destination."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.loopback import Loopback, RequestFailed
from tests.support.node_process import free_port
from tests.support.services import wait_until

INSTALL = "apt-get install orthanc orthanc-dicomweb"
AE_TITLE = "ORTHANC"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 60.0


class Orthanc:
    """The running server, spoken to through its REST interface."""

    def __init__(self, network: Loopback, http_port: int, dicom_port: int) -> None:
        self.dicom_port = dicom_port
        self.pid = 0
        self._network = network
        self._url = f"http://127.0.0.1:{http_port}"

    @property
    def dicom_web_url(self) -> str:
        """Root of its DICOMweb services."""
        return f"{self._url}/dicom-web"

    def get(self, path: str) -> Any:
        """The JSON at a path of the REST interface."""
        return json.loads(self._network.request("GET", self._url + path))

    def post(self, path: str, value: object) -> Any:
        """Post a value as JSON; the JSON of the answer."""
        return json.loads(self._network.request("POST", self._url + path, _as_json(value)))

    def upload(self, file: Path) -> str:
        """Give it a DICOM file; Orthanc's id of the instance."""
        content = file.read_bytes()
        answer = self._network.request(
            "POST", f"{self._url}/instances", content, "application/dicom"
        )
        said: dict[str, str] = json.loads(answer)
        return said["ID"]

    def delete_all(self) -> None:
        """Forget every study."""
        for study in self.get("/studies"):
            self._network.request("DELETE", f"{self._url}/studies/{study}")

    def instances(self) -> dict[str, str]:
        """Orthanc's ids of the instances by SOP Instance UID."""
        listed = self.get("/instances?expand")
        return {entry["MainDicomTags"]["SOPInstanceUID"]: entry["ID"] for entry in listed}

    def file(self, instance: str) -> bytes:
        """An instance, as the DICOM file that it keeps."""
        return self._network.request("GET", f"{self._url}/instances/{instance}/file")

    def answers(self) -> bool:
        """Whether the REST interface answers."""
        try:
            return bool(self.get("/system")["Version"])
        except RequestFailed:
            return False


def program() -> str:
    """Path of Orthanc; skips the test where it, or its plug-in, is not installed."""
    path = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if path is None or not PLUGIN.exists():
        pytest.skip(f"Orthanc with its DICOMweb plug-in is not installed; {INSTALL}")
    return path


@contextmanager
def orthanc(
    network: Loopback,
    folder: Path,
    modalities: Mapping[str, tuple[str, int]] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Iterator[Orthanc]:
    """Orthanc inside a network, for the duration of the block.

    Args:
        network: where it listens.
        folder: for its database, its files and its log; made.
        modalities: what it may send to: name -> (AE title, port).
        extra: more of its configuration.
    """
    path = program()
    server = Orthanc(network, free_port(), free_port())
    folder.mkdir(parents=True, exist_ok=True)  # started again, it has what it had
    configuration = folder / "orthanc.json"
    configured = {**_configuration(server, folder, modalities or {}), **(extra or {})}
    configuration.write_text(json.dumps(configured))
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*network.command, path, str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server.pid = process.pid
    try:
        wait_until(lambda: server.answers() or process.poll() is not None, _START_S, "Orthanc")
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _configuration(
    server: Orthanc, folder: Path, modalities: Mapping[str, tuple[str, int]]
) -> dict[str, object]:
    """Its defaults apart from places, names and ports."""
    return {
        "Name": "Test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": int(server._url.rsplit(":", 1)[1]),
        "DicomPort": server.dicom_port,
        "DicomAet": AE_TITLE,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        "DicomModalities": {
            name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()
        },
    }


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()
