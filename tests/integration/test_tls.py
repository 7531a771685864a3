"""TLS on real sockets: the listener's second port, deliveries that know their peer, pages over HTTPS."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from node import admission, peers, probe, schema, scu, stow
from node.cli.app import app
from node.config import Settings
from node.db import Database
from node.deliveries import Destination, Parcel, destination_of
from node.errors import ConfigError, Conflict, PeerRefused, PeerUnavailable
from node.listener import Listener
from node.services import node_services
from node.tls import client_context, pin_of, server_context
from node.web import server
from tests.conftest import make_settings
from tests.support import dcmtk
from tests.support.certificates import Authority, Certificate
from tests.support.listening import running, stored
from tests.support.loopback import loopback
from tests.support.node_process import free_port
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.services import wait_until
from tests.support.stow_server import Script, StowServer

NOW = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def node_certificate(authority: Authority) -> Certificate:
    return authority.signed("node")


@pytest.fixture(scope="module")
def sender_certificate(authority: Authority) -> Certificate:
    return authority.signed("sender")


@pytest.fixture(scope="module")
def stranger(authority: Authority) -> Certificate:
    """Signed by nobody but itself."""
    return authority.self_signed("stranger")


def listening(home: Path, own: Certificate, **more: object) -> Settings:
    """A node with a TLS port."""
    values: dict[str, object] = {
        "listen_tls_port": free_port(),
        "tls_certificate": own.certificate,
        "tls_key": own.key,
        "acse_timeout_s": 10.0,
    }
    return make_settings(home, **values | more)


def sending(home: Path, own: Certificate | None = None, **more: object) -> Settings:
    """A node that delivers."""
    values: dict[str, object] = {"ae_title": "SENDER"}
    if own is not None:
        values |= {"tls_certificate": own.certificate, "tls_key": own.key}
    return make_settings(home, **values | more)


def secure(settings: Settings, pin: str | None = None, host: str = "127.0.0.1") -> Destination:
    port = settings.listen_tls_port
    return Destination("node", "DICOM", settings.ae_title, host, port, None, True, pin)


def plain(node: Listener) -> Destination:
    return Destination("node", "DICOM", node.settings.ae_title, "127.0.0.1", node.port, None)


def parcel(path: Path, pixel_bytes: int = 0) -> tuple[Parcel, Path]:
    made = write_large(path, pixel_bytes) if pixel_bytes else write_object(path)
    return Parcel(uuid.uuid4(), made.SOPInstanceUID, made.SOPClassUID, "ab" * 32), path


@pytest.fixture
def node(tmp_path: Path, node_certificate: Certificate) -> Iterator[Listener]:
    """A listener with a TLS port that asks nobody for a certificate."""
    with running(listening(tmp_path / "node", node_certificate)) as started:
        yield started


def test_objects_arrive_over_tls_as_they_are(
    node: Listener, tmp_path: Path, authority: Authority
) -> None:
    small, large = parcel(tmp_path / "small.dcm"), parcel(tmp_path / "large.dcm", 30 * 2**20)
    sender = sending(tmp_path / "sender", tls_authorities=authority.path)
    answers = scu.store(secure(node.settings), [small, large], sender)
    assert [answer.status for answer in answers] == ["0x0000", "0x0000"]
    kept = stored(node.settings)
    for sent, path in (small, large):
        blob = node.store.path(kept[sent.sop_uid]).read_bytes()
        assert data_set_bytes(blob) == data_set_bytes(path.read_bytes())
    assert scu.echo(secure(node.settings), sender) > 0
    assert scu.echo(plain(node), sender) > 0  # the first port is there too


def test_a_pin_takes_the_place_of_an_authority(
    tmp_path: Path, stranger: Certificate, node_certificate: Certificate, authority: Authority
) -> None:
    settings = listening(tmp_path / "node", stranger)
    sender = sending(tmp_path / "sender", tls_authorities=authority.path)
    with running(settings):
        assert scu.echo(secure(settings, stranger.sha256), sender) > 0
        with pytest.raises(PeerRefused, match=r"self.signed"):
            scu.echo(secure(settings), sender)
        with pytest.raises(PeerRefused, match=f"{stranger.sha256}, the pin is {'0' * 64}"):
            scu.store(secure(settings, "0" * 64), [parcel(tmp_path / "one.dcm")], sender)
        assert stored(settings) == {}


def test_nothing_is_said_to_a_peer_with_another_certificate(
    tmp_path: Path, stranger: Certificate
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stranger.certificate, stranger.key)
    heard: list[bytes] = []

    def listen(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                heard.append(wrapped.recv(1))
        except OSError:
            heard.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=listen, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        wrong = Destination("pacs", "DICOM", "PACS", "127.0.0.1", port, None, True, "0" * 64)
        with pytest.raises(PeerRefused, match="the pin is"):
            scu.echo(wrong, sending(tmp_path))
        thread.join(20)
    assert heard == [b""]


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = authority.signed("elsewhere", "DNS:pacs.example")
    settings = listening(tmp_path / "node", other)
    sender = sending(tmp_path / "sender", tls_authorities=authority.path)
    with running(settings), pytest.raises(PeerRefused, match=r"127\.0\.0\.1"):
        scu.echo(secure(settings), sender)


def test_a_peer_on_the_wrong_kind_of_port_is_unavailable(
    node: Listener, tmp_path: Path, authority: Authority
) -> None:
    times = {"acse_timeout_s": 3.0, "network_timeout_s": 3.0}
    sender = sending(tmp_path / "sender", tls_authorities=authority.path, **times)
    with pytest.raises(PeerUnavailable, match="does that port speak TLS"):
        scu.echo(replace(secure(node.settings), port=node.port), sender)
    with pytest.raises(PeerUnavailable):
        scu.echo(replace(plain(node), port=node.settings.listen_tls_port), sender)
    assert scu.echo(secure(node.settings), sender) > 0


def test_clients_that_say_nothing_do_not_close_the_port(
    tmp_path: Path, node_certificate: Certificate, authority: Authority
) -> None:
    settings = listening(tmp_path / "node", node_certificate, acse_timeout_s=3.0)
    sender = sending(tmp_path / "sender", tls_authorities=authority.path)
    with running(settings), ExitStack() as stack:
        where = ("127.0.0.1", settings.listen_tls_port)
        silent = [stack.enter_context(socket.create_connection(where)) for _ in range(8)]
        silent[0].sendall(b"nonsense that is no handshake")
        silent[1].sendall(b"\x16\x03")  # the beginning of one
        assert scu.echo(secure(settings), sender) > 0
        for connection in silent:
            connection.settimeout(20)
            with suppress(ConnectionResetError):  # the end, perhaps after an alert
                while connection.recv(100):
                    pass
        assert scu.echo(secure(settings), sender) > 0


def test_where_authorities_are_set_a_client_shows_a_certificate_of_theirs(
    tmp_path: Path,
    authority: Authority,
    node_certificate: Certificate,
    sender_certificate: Certificate,
    stranger: Certificate,
) -> None:
    settings = listening(tmp_path / "node", node_certificate, tls_authorities=authority.path)
    knows = {"tls_authorities": authority.path, "acse_timeout_s": 5.0}
    with running(settings):
        assert scu.echo(secure(settings), sending(tmp_path / "a", sender_certificate, **knows)) > 0
        for own in (None, stranger):
            with pytest.raises(PeerUnavailable):
                scu.echo(secure(settings), sending(tmp_path / "b", own, **knows))
        assert scu.echo(secure(settings), sending(tmp_path / "a", sender_certificate, **knows)) > 0


def test_a_pinned_peer_calls_with_its_certificate_alone(
    tmp_path: Path,
    authority: Authority,
    node_certificate: Certificate,
    sender_certificate: Certificate,
) -> None:
    settings = listening(tmp_path / "node", node_certificate, tls_authorities=authority.path)
    schema.upgrade(settings.db_url)
    pin = sender_certificate.sha256
    with running(settings) as node:
        with node.db.transaction() as session:
            peers.add(session, peers.dicom_peer("s", "SENDER", "h", 104, NOW, tls=True, pin=pin))
        right = sending(tmp_path / "a", sender_certificate, tls_authorities=authority.path)
        wrong = sending(tmp_path / "b", node_certificate, tls_authorities=authority.path)
        assert scu.echo(secure(settings), right) > 0
        for where in (secure(settings), plain(node)):
            with pytest.raises(PeerRefused, match="Calling AE title not recognised"):
                scu.echo(where, wrong)
        other = wrong.model_copy(update={"ae_title": "OTHER"})
        assert scu.echo(secure(settings), other) > 0
        assert scu.echo(plain(node), other) > 0


def test_with_tls_only_the_plain_port_is_for_this_host(
    tmp_path: Path, node_certificate: Certificate
) -> None:
    settings = listening(tmp_path, node_certificate, listen_tls_only=True)
    schema.upgrade(settings.db_url)
    db, everywhere = Database(settings.db_url), [ipaddress.ip_network("0.0.0.0/0")]
    with socket.socket() as raw:
        refused = admission.refusal("192.0.2.7", "SENDER", raw, settings, everywhere, db)
        assert refused is not None
        assert refused.reason == "only over TLS"
        assert admission.refusal("127.0.0.1", "SENDER", raw, settings, everywhere, db) is None
    with ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
        socket.socket(), server_hostname="h"
    ) as wrapped:
        assert admission.refusal("192.0.2.7", "SENDER", wrapped, settings, everywhere, db) is None
    db.dispose()


def test_an_address_that_is_not_allowed_gets_no_handshake(
    tmp_path: Path, node_certificate: Certificate, authority: Authority
) -> None:
    settings = listening(
        tmp_path / "node", node_certificate, allowed_addresses=frozenset({"192.0.2.0/24"})
    )
    sender = sending(tmp_path / "sender", tls_authorities=authority.path)
    with running(settings), pytest.raises(PeerUnavailable):
        scu.echo(secure(settings), sender)


def test_a_listener_with_tls_stops_and_frees_both_ports(
    tmp_path: Path, node_certificate: Certificate
) -> None:
    settings = listening(tmp_path, node_certificate, acse_timeout_s=60.0)
    with running(settings) as node:
        port = node.port
        held = socket.create_connection(("127.0.0.1", settings.listen_tls_port))
        started = time.monotonic()
    assert time.monotonic() - started < 20  # a handshake that never comes holds nobody
    held.close()
    assert not probe.accepts("127.0.0.1", port)
    assert not probe.accepts("127.0.0.1", settings.listen_tls_port)


def test_settings_that_cannot_work_are_said(
    tmp_path: Path, authority: Authority, node_certificate: Certificate, stranger: Certificate
) -> None:
    locked = authority.self_signed("locked", password="secret")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    good = listening(tmp_path, node_certificate)
    for change, said in (
        ({"tls_certificate": None}, "TOMONODE_TLS_CERTIFICATE"),
        ({"tls_certificate": tmp_path / "absent.pem"}, "No such file"),
        ({"tls_certificate": nonsense}, "TOMONODE_TLS_CERTIFICATE"),
        ({"tls_key": stranger.key}, "key values mismatch"),
        ({"tls_certificate": locked.certificate, "tls_key": locked.key}, "password"),
        ({"tls_authorities": nonsense}, "TOMONODE_TLS_AUTHORITIES"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            server_context(good.model_copy(update=change))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="TOMONODE_TLS_AUTHORITIES"):
        client_context(good.model_copy(update={"tls_authorities": nonsense}), None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = good.model_copy(update={"listen_tls_port": taken.getsockname()[1]})
        schema.upgrade(busy.db_url)
        node = Listener(busy)
        with pytest.raises(ConfigError, match="TOMONODE_LISTEN_TLS_PORT"):
            node.start()
        assert not probe.accepts("127.0.0.1", node.port)


def test_pins() -> None:
    plain_text = "ab" * 32
    spaced = ":".join(["AB"] * 32)
    assert pin_of(plain_text) == plain_text
    assert pin_of(f"sha256 Fingerprint={spaced}\n") == plain_text
    for text in ("", "abc", "ab" * 20, "g" * 64):
        with pytest.raises(ConfigError, match="cannot be used"):
            pin_of(text)


def test_a_peers_pin_is_kept_and_not_changed_by_accident(db: Database) -> None:
    pin = "ab" * 32
    with db.transaction() as session:
        peer = peers.dicom_peer("pacs", "PACS", "host", 2762, NOW, tls=True, pin=pin.upper())
        assert peers.add(session, peer)
        web = peers.stow_peer("web", "https://host/dicom-web", NOW, pin=pin)
        assert peers.add(session, web)
        old = peers.dicom_peer("old", "OLD", "host", 104, NOW)
        assert peers.add(session, old)
    with db.transaction() as session:
        found = destination_of(peers.find(session, "pacs"))
        assert (found.tls, found.pin_sha256) == (True, pin)
        assert destination_of(peers.find(session, "web")).pin_sha256 == pin
        assert destination_of(peers.find(session, "old")) == Destination(
            "old", "DICOM", "OLD", "host", 104, None
        )
        assert peers.address(peers.find(session, "pacs")) == "PACS at host:2762, TLS, pinned"
        same = peers.dicom_peer("pacs", "PACS", "host", 2762, NOW, tls=True, pin=pin)
        assert not peers.add(session, same)
        other = peers.dicom_peer("pacs", "PACS", "host", 2762, NOW, tls=True, pin="cd" * 32)
        with pytest.raises(Conflict):
            peers.add(session, other)
    with db.transaction() as session:
        peers.remove(session, "pacs")
        peers.add(session, other)
        assert destination_of(peers.find(session, "pacs")).pin_sha256 == "cd" * 32
    with pytest.raises(ConfigError, match="--tls"):
        peers.dicom_peer("pacs", "PACS", "host", 104, NOW, pin=pin)
    with pytest.raises(ConfigError, match="https"):
        peers.stow_peer("web", "http://host/dicom-web", NOW, pin=pin)


def test_the_command_keeps_what_it_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(settings.db_url)
    monkeypatch.setenv("TOMONODE_HOME", str(settings.home))
    command, pin = CliRunner(), "ab" * 32
    where = ["pacs", "PACS", "10.0.0.5", "2762"]
    added = command.invoke(app, ["peer", "add", *where, "--tls", "--pin", pin])
    assert added.output.strip() == "added pacs: PACS at 10.0.0.5:2762, TLS, pinned"
    listed = json.loads(command.invoke(app, ["peer", "list", "--json"]).output)
    assert [(one["tls"], one["pin_sha256"]) for one in listed] == [(True, pin)]
    confused = command.invoke(app, ["peer", "add", "web", "--url", "http://host/web", "--tls"])
    assert isinstance(confused.exception, ConfigError)


@pytest.fixture
def secure_stow(stranger: Certificate) -> Iterator[StowServer]:
    """A STOW-RS service over HTTPS, with a certificate that nobody vouches for."""
    made = StowServer(Script())
    made._server.config.ssl_certfile = str(stranger.certificate)
    made._server.config.ssl_keyfile = str(stranger.key)
    made.start()
    yield made
    made.stop()


def test_stow_over_https_knows_its_peer_by_the_pin(
    secure_stow: StowServer, tmp_path: Path, stranger: Certificate
) -> None:
    url = str(secure_stow.destination().url).replace("http:", "https:")
    right = Destination("stow", "STOW", None, None, None, url, pin_sha256=stranger.sha256)
    one, sender = parcel(tmp_path / "one.dcm"), sending(tmp_path)
    assert [a.status for a in stow.store(right, [one], sender)] == ["0x0000"]
    assert peers.reach(right, sender) > 0
    for wrong in (replace(right, pin_sha256="0" * 64), replace(right, pin_sha256=None)):
        with pytest.raises(PeerRefused):
            stow.store(wrong, [one], sender)
    assert len(secure_stow.received) == 1


def test_pages_over_https(tmp_path: Path, authority: Authority) -> None:
    own = authority.signed("web")
    settings = make_settings(
        tmp_path, web_port=free_port(), web_certificate=own.certificate, web_key=own.key
    )
    assert settings.web_url == f"https://127.0.0.1:{settings.web_port}/"
    assert settings.web_url in {service.where for service in node_services(settings)}
    schema.upgrade(settings.db_url)
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(settings, stop))
    thread.start()
    try:
        wait_until(lambda: probe.serves_pages("127.0.0.1", settings.web_port, tls=True), 60, "web")
        trusted = ssl.create_default_context(cafile=str(authority.path))
        assert httpx.get(settings.web_url, verify=trusted).status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(settings.web_url.replace("https", "http"))
    finally:
        stop.set()
        thread.join(60)
    with pytest.raises(ConfigError, match="TOMONODE_WEB_CERTIFICATE"):
        server.run(settings.model_copy(update={"web_certificate": tmp_path / "absent.pem"}), stop)


@pytest.mark.system
def test_dcmtk_sends_over_tls(
    tmp_path: Path,
    authority: Authority,
    node_certificate: Certificate,
    sender_certificate: Certificate,
) -> None:
    settings = listening(tmp_path / "node", node_certificate, tls_authorities=authority.path)
    path = tmp_path / "one.dcm"
    made = write_object(path)
    key, certificate = str(sender_certificate.key), str(sender_certificate.certificate)
    shown = ("+tls", key, certificate, "+cf", str(authority.path))
    where = ("-aec", "TOMONODE", "127.0.0.1", str(settings.listen_tls_port))
    with running(settings):
        echoed = dcmtk.run("echoscu", *shown, *where)
        assert echoed.returncode == 0, echoed.stdout
        sent = dcmtk.run("storescu", "-R", *shown, *where, path)
        assert sent.returncode == 0, sent.stdout
        assert dcmtk.run("echoscu", "+tla", "+cf", str(authority.path), *where).returncode != 0
    assert made.SOPInstanceUID in stored(settings)


_SEND = """
import uuid
from pathlib import Path
from node import scu
from node.deliveries import Destination, Parcel
from node.errors import NodeError
from tests.conftest import make_settings
settings = make_settings(Path({home!r}), ae_title="SENDER", **{own!r})
file = scu.outgoing(Path({path!r}))
parcel = Parcel(uuid.uuid4(), file.sop_uid, file.sop_class_uid, "ab" * 32)
for pin in {pins!r}:
    peer = Destination("pacs", "DICOM", {title!r}, "127.0.0.1", {port}, None, True, pin)
    try:
        print(*[answer.status for answer in scu.store(peer, [(parcel, file.path)], settings)])
    except NodeError as error:
        print(type(error).__name__)
"""


@pytest.mark.system
def test_storescp_with_mutual_tls_as_a_peer(
    tmp_path: Path,
    authority: Authority,
    node_certificate: Certificate,
    sender_certificate: Certificate,
) -> None:
    path, port = tmp_path / "one.dcm", free_port()
    made = write_object(path)
    folder = tmp_path / "pacs"
    folder.mkdir()
    words = [dcmtk.program("storescp"), "-aet", "PACS", "-od", str(folder)]
    words += ["+tls", str(node_certificate.key), str(node_certificate.certificate)]
    words += ["+cf", str(authority.path), str(port)]
    own = {"tls_certificate": str(sender_certificate.certificate)}
    own |= {"tls_key": str(sender_certificate.key), "tls_authorities": str(authority.path)}
    given = {"home": str(tmp_path), "own": own, "path": str(path), "title": "PACS", "port": port}
    pins = [None, node_certificate.sha256, "0" * 64]
    with loopback() as network:
        process = subprocess.Popen([*network.command, *words])
        try:
            time.sleep(1)
            done = subprocess.run(
                [*network.command, sys.executable, "-c", _SEND.format(**given, pins=pins)],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            process.kill()
            process.wait()
    assert done.stdout.split() == ["0x0000", "0x0000", "PeerRefused"], done.stderr
    [file] = folder.iterdir()
    assert dcmread(file).SOPInstanceUID == made.SOPInstanceUID
