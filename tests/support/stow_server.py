"""A small STOW-RS service (PS3.18 10.5) on loopback that parses what it gets and answers as scripted."""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import uvicorn
from fastapi import FastAPI, Request, Response
from pydicom import dcmread

from node.deliveries import Destination
from tests.support.services import wait_until


@dataclass(frozen=True)
class Script:
    """How the service answers: `failures` {position of the object, from 0: failure reason}, `warnings` likewise.

    `http_status` None follows from them, as the standard says; `form` is json, xml, empty or nonsense.
    """

    failures: Mapping[int, int] = field(default_factory=dict)
    warnings: Mapping[int, int] = field(default_factory=dict)
    unnamed: frozenset[int] = frozenset()  # objects that the answer does not speak of
    http_status: int | None = None
    form: str = "json"


class StowServer:
    """The running service; `received` holds the files as they came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[bytes] = []
        self.content_lengths: list[str | None] = []
        app = FastAPI()
        app.add_api_route("/dicom-web/studies", self._store, methods=["POST"])
        app.add_api_route("/dicom-web/studies", self._search, methods=["GET"])
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        wait_until(lambda: self._server.started, 20, "the STOW server to start")

    def stop(self) -> None:
        """End."""
        self._server.should_exit = True
        self._thread.join(20)

    def destination(self) -> Destination:
        """The service as a destination of results."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return Destination("stow", "STOW", None, None, None, f"http://127.0.0.1:{port}/dicom-web")

    async def _search(self) -> Response:
        status = self.script.http_status or 200
        return Response("[]", status_code=status, media_type="application/dicom+json")

    async def _store(self, request: Request) -> Response:
        content_type = request.headers["content-type"]
        assert 'type="application/dicom"' in content_type
        self.content_lengths.append(request.headers.get("content-length"))
        raw = f"Content-Type: {content_type}\r\n\r\n".encode() + await request.body()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
        files = []
        for part in message.iter_parts():
            assert part.get_content_type() == "application/dicom"
            files.append(bytes(part.get_payload(decode=True)))
        self.received += files
        uids = [str(dcmread(BytesIO(file)).SOPInstanceUID) for file in files]
        return self._answer(uids)

    def _answer(self, uids: list[str]) -> Response:
        script = self.script
        named = [(n, uid) for n, uid in enumerate(uids) if n not in script.unnamed]
        failed = [(uid, script.failures[n]) for n, uid in named if n in script.failures]
        stored = [(uid, script.warnings.get(n)) for n, uid in named if n not in script.failures]
        status = script.http_status
        if status is None:
            status = 200 if not failed else (202 if stored else 409)
        if script.form == "json":
            body, kind = _as_json(stored, failed), "application/dicom+json"
        elif script.form == "xml":
            body, kind = _as_xml(stored, failed), "application/dicom+xml"
        else:
            body, kind = ("", "text/plain") if script.form == "empty" else ("{", "application/json")
        return Response(body, status_code=status, media_type=kind)


def _as_json(stored: list[tuple[str, int | None]], failed: list[tuple[str, int]]) -> str:
    def item(uid: str, tag: str, reason: int | None) -> dict[str, object]:
        made: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        return made if reason is None else {**made, tag: {"vr": "US", "Value": [reason]}}

    return json.dumps(
        {
            "00081190": {"vr": "UR", "Value": ["http://127.0.0.1/studies/1"]},
            "00081199": {"vr": "SQ", "Value": [item(u, "00081196", w) for u, w in stored]},
            "00081198": {"vr": "SQ", "Value": [item(u, "00081197", f) for u, f in failed]},
        }
    )


def _as_xml(stored: list[tuple[str, int | None]], failed: list[tuple[str, int]]) -> str:
    def attribute(tag: str, content: str) -> str:
        return f'<DicomAttribute tag="{tag}" vr="UN">{content}</DicomAttribute>'

    def items(pairs: list[tuple[str, int | None]], tag: str) -> str:
        made = ""
        for number, (uid, reason) in enumerate(pairs, 1):
            inner = attribute("00081155", f'<Value number="1">{uid}</Value>')
            if reason is not None:
                inner += attribute(tag, f'<Value number="1">{reason}</Value>')
            made += f'<Item number="{number}">{inner}</Item>'
        return made

    name_space = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
    sequences = attribute("00081199", items(stored, "00081196"))
    sequences += attribute("00081198", items(list(failed), "00081197"))
    return f'<?xml version="1.0"?><NativeDicomModel xmlns="{name_space}">{sequences}</NativeDicomModel>'


@contextmanager
def stow_server(script: Script | None = None) -> Iterator[StowServer]:
    """A service for the duration of the block."""
    server = StowServer(script or Script())
    server.start()
    try:
        yield server
    finally:
        server.stop()
