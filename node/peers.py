"""Other systems, where results go and studies come from: checked when they are added, so that no delivery fails for a
typing error."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

import httpx
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from node import scu
from node.config import Settings
from node.db import transition
from node.deliveries import Destination
from node.errors import ConfigError, Conflict, NotFound, PeerRefused, PeerUnavailable
from node.lifecycle import DeliveryEvent, DeliveryState
from node.models import Delivery, Peer
from node.peer_parts import NEW, UNSAID, Part, assign, columns
from node.tls import client_context, pin_of

_NAME_LIMIT = 64
_HOST_LIMIT = 255
_URL_LIMIT = 2000
_REACH_S = 5.0
_ADDRESS = ("kind", "ae_title", "host", "port", "url", "tls", "pin_sha256")


def dicom_peer(
    name: str,
    ae_title: str,
    host: str,
    port: int,
    at: datetime,
    *,
    tls: bool = False,
    pin: str | None = None,
) -> Peer:
    """A Storage SCP as a destination.

    Args:
        name: what people call it, 1 to 64 printable characters.
        ae_title: DICOM PS3.5 6.2, VR AE: 1 to 16 printable ASCII characters, no backslash, not only spaces.
        host: name or address.
        port: 1 to 65535.
        at: now.
        tls: whether its port speaks TLS.
        pin: SHA-256 of its certificate, in place of an authority that vouches for it; only with `tls`.

    Raises:
        ConfigError: a value cannot be used.
    """
    _check_name(name)
    if pin is not None and not tls:
        raise ConfigError(f"peer {name!r} has a pin and no TLS; add --tls, or leave out --pin")
    title = ae_title.strip(" ")
    if not 1 <= len(title) <= 16 or "\\" in title or not (title.isascii() and title.isprintable()):
        raise ConfigError(
            f"AE title {ae_title!r} cannot be used; give 1 to 16 ASCII characters without a backslash"
        )
    if not host or len(host) > _HOST_LIMIT or any(c.isspace() or c == "/" for c in host):
        raise ConfigError(f"host {host!r} cannot be used; give a host name or an address")
    if not 1 <= port <= 65535:
        raise ConfigError(f"port {port} cannot be used; give 1 to 65535")
    return Peer(
        id=uuid.uuid4(),
        name=name,
        kind="DICOM",
        ae_title=title,
        host=host,
        port=port,
        tls=tls,
        pin_sha256=None if pin is None else pin_of(pin),
        enabled=True,
        created_at=at,
    )


def stow_peer(name: str, url: str, at: datetime, *, pin: str | None = None) -> Peer:
    """A STOW-RS service (DICOM PS3.18 10.5) as a destination; `url` is the base that `/studies` is added to.

    `pin` is the SHA-256 of its certificate, in place of an authority that vouches for it; only with https.

    Raises:
        ConfigError: a value cannot be used.
    """
    _check_name(name)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(url) > _URL_LIMIT or any(c.isspace() for c in url):
        raise ConfigError(
            f"URL {url!r} cannot be used; give the DICOMweb base, such as http://HOST:8042/dicom-web"
        )
    if pin is not None and parts.scheme != "https":
        raise ConfigError(f"peer {name!r} has a pin and no TLS; give an https URL, or no --pin")
    return Peer(
        id=uuid.uuid4(),
        name=name,
        kind="STOW",
        url=url.rstrip("/"),
        tls=False,
        pin_sha256=None if pin is None else pin_of(pin),
        enabled=True,
        created_at=at,
    )


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable() or name != name.strip():
        raise ConfigError(
            f"peer name {name!r} cannot be used; give 1 to {_NAME_LIMIT} printable characters"
        )


def change(session: Session, name: str, part: Part) -> int:
    """Say what a peer is for from now on; where it takes no results any more, what waits to be sent is cancelled.

    Returns:
        How many deliveries were cancelled.

    Raises:
        NotFound: no such peer.
        ConfigError: nothing is to change, or a STOW-RS service is to do what it cannot.
    """
    peer = find(session, name)
    if part.empty:
        raise ConfigError(
            f"nothing to change of peer {name!r}; give --results KINDS, --no-results, --query or --commit"
        )
    assign(peer, columns(peer, part))
    session.flush()
    return 0 if peer.receives else _cancel(session, peer.id)


def add(session: Session, peer: Peer, part: Part = UNSAID) -> bool:
    """Keep a new peer, in the caller's transaction. A removed peer of this name comes back as the new one.

    Returns:
        False if just this peer was here already.

    Raises:
        Conflict: the name is taken by another address, or the same one known in another way or for another part.
        ConfigError: a STOW-RS service is to do what it cannot.
    """
    assign(peer, NEW)
    assign(peer, columns(peer, part))
    known = session.execute(select(Peer).where(Peer.name == peer.name)).scalar_one_or_none()
    if known is None:
        session.add(peer)
        session.flush()
        return True
    same = _identity(known) == _identity(peer)
    if known.enabled and not same:
        raise Conflict(
            f"peer {peer.name!r} is here already as {address(known)}; remove it first, or choose another name"
        )
    if known.enabled:
        if columns(known, UNSAID) != columns(known, part):
            raise Conflict(
                f"peer {peer.name!r} is here already with other options; `tomonode peer set` changes them"
            )
        return False
    for column in (*_ADDRESS, *NEW, "enabled"):
        setattr(known, column, getattr(peer, column))
    session.flush()
    return True


def listed(session: Session) -> Sequence[Peer]:
    """The peers, by name."""
    return (
        session.execute(select(Peer).where(Peer.enabled).order_by(func.lower(Peer.name)))
        .scalars()
        .all()
    )


def find(session: Session, name: str) -> Peer:
    """A peer by its name.

    Raises:
        NotFound: no such peer.
    """
    peer = session.execute(select(Peer).where(Peer.name == name, Peer.enabled)).scalar_one_or_none()
    if peer is None:
        raise NotFound(f"no peer {name!r}; `tomonode peer list` shows what is here")
    return peer


def called(session: Session, ae_title: str) -> Peer | None:
    """The DICOM peer that goes by an AE title; of several the first by name."""
    query = select(Peer).where(Peer.enabled, Peer.kind == "DICOM", Peer.ae_title == ae_title)
    return session.execute(query.order_by(Peer.name).limit(1)).scalar_one_or_none()


def remove(session: Session, name: str) -> int:
    """Send nothing to this peer any more: its open deliveries are cancelled. Its row stays for the history.

    Returns:
        How many deliveries were cancelled.

    Raises:
        NotFound: no such peer.
    """
    peer = find(session, name)
    peer_id = peer.id
    session.execute(update(Peer).where(Peer.id == peer_id).values(enabled=False))
    return _cancel(session, peer_id)


def _cancel(session: Session, peer_id: uuid.UUID) -> int:
    is_open = Delivery.state.in_([DeliveryState.PENDING, DeliveryState.SENDING])
    return transition(
        session,
        Delivery,
        DeliveryEvent.CANCEL,
        [Delivery.peer_id == peer_id, is_open],
        lease_until=None,
    )


def address(peer: Peer) -> str:
    """Where a peer is, for people: `AE at HOST:PORT`, or the URL, and how it is known."""
    where = f"{peer.ae_title} at {peer.host}:{peer.port}{', TLS' if peer.tls else ''}"
    return f"{peer.url if peer.kind == 'STOW' else where}{', pinned' if peer.pin_sha256 else ''}"


def _identity(peer: Peer) -> tuple[str, str | None]:
    return address(peer), peer.pin_sha256


def reach(destination: Destination, settings: Settings) -> float:
    """Ask a peer whether it is there: C-ECHO, or a search for one study (QIDO-RS, DICOM PS3.18 10.6).

    Returns:
        Seconds until the answer.

    Raises:
        PeerUnavailable: no answer within a few seconds, or an error of its own.
        PeerRefused: it answered, and does not want us.
    """
    if destination.kind == "DICOM":
        quick = {"acse_timeout_s": _REACH_S, "dimse_timeout_s": _REACH_S}
        return scu.echo(destination, settings.model_copy(update=quick))
    started = time.monotonic()
    url = f"{destination.url}/studies"
    try:
        accept = {"Accept": "application/dicom+json"}
        verify = client_context(settings, destination.pin_sha256)
        answer = httpx.get(
            url, params={"limit": "1"}, headers=accept, timeout=_REACH_S, verify=verify
        )
    except httpx.HTTPError as error:
        raise PeerUnavailable(f"no answer from {url}; {error}; is it running?") from None
    if answer.status_code >= 500:
        raise PeerUnavailable(f"{url} answered HTTP {answer.status_code}; see its log")
    if answer.status_code in (401, 403, 404):
        raise PeerRefused(f"{url} answered HTTP {answer.status_code}; check the URL and its rights")
    return time.monotonic() - started
