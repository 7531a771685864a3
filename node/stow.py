"""STOW-RS (DICOM PS3.18 10.5): the second way to send results, one request for all objects of a delivery.

The body is streamed from disk. The answer says of each object whether it was stored; what an answer leaves out has no
`Answer` here, so that it is sent again.
"""

from __future__ import annotations

import json
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx

from node.config import Settings
from node.deliveries import Answer, Destination, Parcel
from node.errors import NodeError, PeerRefused, PeerUnavailable
from node.tls import client_context, reason

_CHUNK = 2**20
_STORED, _FAILED = "00081199", "00081198"  # Referenced, Failed SOP Sequence: PS3.18 table 10.5.3-3
_INSTANCE, _WARNING, _FAILURE = "00081155", "00081196", "00081197"
_JSON = "application/dicom+json"
_LATER = frozenset({408, 423, 425, 429})  # of 4xx: try again later
_NEVER = frozenset({501, 505})  # of 5xx: trying again would fail again

#: SOP Instance UID -> (stored, status as text)
Verdicts = dict[str, tuple[bool, str]]


def store(
    destination: Destination, parcels: Sequence[tuple[Parcel, Path]], settings: Settings
) -> list[Answer]:
    """Send objects in one request.

    Returns:
        What the service said of each object: a warning or failure reason (PS3.18 annex I.2.2, the same numbers as DIMSE
        statuses) such as 0x0000 or 0xA700, or the HTTP status where it gives none. An object without an answer may or
        may not be stored.

    Raises:
        PeerUnavailable: no connection, time-out, or an HTTP status that says later.
        PeerRefused: an HTTP status that says no to the whole request.
    """
    paths = [path for _, path in parcels]
    boundary = uuid.uuid4().hex
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(_length(paths, boundary)),
        "Accept": _JSON,
    }
    with _client(destination, settings) as client, _transport_errors(destination):
        response = client.post(
            f"{destination.url}/studies", headers=headers, content=_body(paths, boundary)
        )
    if response.status_code not in (200, 202, 409):
        raise _refusal(destination, response)
    verdicts = parse_response(response.headers.get("Content-Type", ""), response.content)
    answers = []
    for parcel, _ in parcels:
        said = verdicts.get(parcel.sop_uid) or _unsaid(response.status_code, bool(verdicts))
        if said is not None:
            answers.append(Answer(parcel.artifact_id, *said))
    return answers


def echo(destination: Destination, settings: Settings) -> float:
    """Ask the service for one study (QIDO-RS), to see that it is there; returns the seconds it took.

    Raises:
        PeerUnavailable: no connection, time-out, or an HTTP status that says later.
        PeerRefused: an HTTP status that says no.
    """
    started = time.monotonic()
    with _client(destination, settings) as client, _transport_errors(destination):
        response = client.get(
            f"{destination.url}/studies", params={"limit": "1"}, headers={"Accept": _JSON}
        )
    if response.status_code >= 300:
        raise _refusal(destination, response)
    return time.monotonic() - started


def parse_response(content_type: str, content: bytes) -> Verdicts:
    """The verdicts in a Store Instances Response Module, as DICOM JSON or native DICOM XML; {} where there are none."""
    try:
        if "json" in content_type.lower():
            return _verdicts(_from_json(json.loads(content)))
        if "xml" in content_type.lower():
            return _verdicts(_from_xml(ElementTree.fromstring(content)))
    except (ValueError, ElementTree.ParseError, TypeError, AttributeError, KeyError, IndexError):
        return {}  # not what it says it is: as good as no answer
    return {}


def _unsaid(http_status: int, others_said: bool) -> tuple[bool, str] | None:
    """What holds for an object that the answer does not name."""
    if http_status == 200 and not others_said:
        return True, "HTTP 200"  # a bare success: all are stored
    if http_status == 409:
        return False, "HTTP 409"  # none, or not this one
    return None


def _verdicts(items: Mapping[str, list[dict[str, str]]]) -> Verdicts:
    found: Verdicts = {}
    for item in items.get(_STORED, []):
        if uid := item.get(_INSTANCE):
            found[uid] = (True, f"0x{int(item.get(_WARNING, '0')):04X}")
    for item in items.get(_FAILED, []):
        if uid := item.get(_INSTANCE):
            found[uid] = (False, f"0x{int(item.get(_FAILURE, str(0x0110))):04X}")
    return found


def _from_json(document: Any) -> dict[str, list[dict[str, str]]]:
    """{sequence: items}, each item {tag: first value}; PS3.18 F.2."""
    dataset = document[0] if isinstance(document, list) else document
    return {
        tag: [
            {key: str(element["Value"][0]) for key, element in item.items() if element.get("Value")}
            for item in dataset.get(tag, {}).get("Value", [])
        ]
        for tag in (_STORED, _FAILED)
    }


def _from_xml(root: ElementTree.Element) -> dict[str, list[dict[str, str]]]:
    """As `_from_json`, of the Native DICOM Model (PS3.19 A.1), whatever its name space."""
    found: dict[str, list[dict[str, str]]] = {}
    for sequence in root.findall("{*}DicomAttribute"):
        found[sequence.get("tag", "")] = [
            {
                element.get("tag", ""): (element.findtext("{*}Value") or "").strip()
                for element in item.findall("{*}DicomAttribute")
            }
            for item in sequence.findall("{*}Item")
        ]
    return found


def _head(boundary: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()


def _tail(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def _body(paths: Sequence[Path], boundary: str) -> Iterator[bytes]:
    """The multipart body (RFC 2387, PS3.18 8.6.1.2.1), in pieces."""
    for path in paths:
        yield _head(boundary)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield _tail(boundary)


def _length(paths: Sequence[Path], boundary: str) -> int:
    """Bytes of the body; given so that servers without chunked transfer can take it."""
    part = len(_head(boundary)) + 2
    return sum(part + path.stat().st_size for path in paths) + len(_tail(boundary))


def _client(destination: Destination, settings: Settings) -> httpx.Client:
    timeout = httpx.Timeout(
        connect=settings.acse_timeout_s,
        read=settings.dimse_timeout_s,
        write=settings.network_timeout_s,
        pool=settings.acse_timeout_s,
    )
    # Proxies of the environment are not ours to use; the system's certificates are, where nothing else is set.
    verify = client_context(settings, destination.pin_sha256)
    return httpx.Client(timeout=timeout, trust_env=False, verify=verify)


@contextmanager
def _transport_errors(destination: Destination) -> Iterator[None]:
    """Turn httpx's errors into ours: what went wrong on the way may be gone later, a URL that is none will not be."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise PeerRefused(
            f"{destination.name}: its URL cannot be used; add the peer again with another"
        ) from error
    except httpx.HTTPError as error:
        failure = _tls_failure(error)
        if isinstance(failure, ssl.SSLCertVerificationError):
            raise PeerRefused(f"{destination.name}: {reason(failure)}") from error
        raise PeerUnavailable(
            f"{destination.name} could not be reached ({type(error).__name__}); is it running?"
        ) from error


def _tls_failure(error: BaseException | None) -> ssl.SSLError | None:
    """The failed handshake that an error of httpx goes back to."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _refusal(destination: Destination, response: httpx.Response) -> NodeError:
    code = response.status_code
    text = f"{destination.name} answered HTTP {code}"
    if code in _LATER or (code >= 500 and code not in _NEVER):
        return PeerUnavailable(f"{text}; see its log")
    return PeerRefused(f"{text}; check the peer's URL and what it lets us do")
