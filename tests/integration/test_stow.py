"""Sending by STOW-RS to a real HTTP service that takes, refuses, answers in part, or is not there."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from pathlib import Path

import pytest

from node import stow
from node.config import Settings
from node.deliveries import Destination, Parcel
from node.errors import PeerRefused, PeerUnavailable
from tests.conftest import make_settings
from tests.support.objects import write_large, write_object
from tests.support.stow_server import Script, stow_server


@pytest.fixture
def hasty(tmp_path: Path) -> Settings:
    """Settings that wait a second for a peer."""
    return make_settings(tmp_path, acse_timeout_s=1.0, dimse_timeout_s=1.0, network_timeout_s=1.0)


def make_parcels(folder: Path, count: int) -> list[tuple[Parcel, Path]]:
    made = []
    for number in range(count):
        path = folder / f"{number}.dcm"
        dataset = write_object(path, InstanceNumber=number)
        parcel = Parcel(uuid.uuid4(), dataset.SOPInstanceUID, dataset.SOPClassUID, "ab" * 32)
        made.append((parcel, path))
    return made


def said(answers: list[stow.Answer]) -> list[tuple[bool, str]]:
    return [(answer.accepted, answer.status) for answer in answers]


def test_files_arrive_as_they_are_in_one_request(settings: Settings, tmp_path: Path) -> None:
    parcels = make_parcels(tmp_path, 3)
    with stow_server() as server:
        answers = stow.store(server.destination(), parcels, settings)
    assert said(answers) == [(True, "0x0000")] * 3
    assert [a.artifact_id for a in answers] == [p.artifact_id for p, _ in parcels]
    assert server.received == [path.read_bytes() for _, path in parcels]
    assert len(server.content_lengths) == 1
    assert server.content_lengths[0] is not None


@pytest.mark.parametrize("form", ["json", "xml"])
def test_each_object_gets_its_answer(settings: Settings, tmp_path: Path, form: str) -> None:
    parcels = make_parcels(tmp_path, 3)
    script = Script(failures={1: 0xA700}, warnings={2: 0xB000}, form=form)
    with stow_server(script) as server:
        answers = stow.store(server.destination(), parcels, settings)
        assert said(answers) == [(True, "0x0000"), (False, "0xA700"), (True, "0xB000")]
        server.script = Script(failures={0: 0xC000, 1: 0x0122, 2: 0x0110}, form=form)
        answers = stow.store(server.destination(), parcels, settings)
        assert said(answers) == [(False, "0xC000"), (False, "0x0122"), (False, "0x0110")]


def test_an_object_that_the_answer_does_not_name_has_none(
    settings: Settings, tmp_path: Path
) -> None:
    parcels = make_parcels(tmp_path, 2)
    with stow_server(Script(unnamed=frozenset({0}))) as server:
        [answer] = stow.store(server.destination(), parcels, settings)
        assert answer.artifact_id == parcels[1][0].artifact_id
        server.script = Script(unnamed=frozenset({0}), failures={1: 0xA700}, http_status=409)
        answers = stow.store(server.destination(), parcels, settings)
        assert said(answers) == [(False, "HTTP 409"), (False, "0xA700")]


@pytest.mark.parametrize("form", ["empty", "nonsense"])
def test_a_bare_answer_is_taken_at_its_word(settings: Settings, tmp_path: Path, form: str) -> None:
    parcels = make_parcels(tmp_path, 1)
    with stow_server(Script(form=form)) as server:
        assert said(stow.store(server.destination(), parcels, settings)) == [(True, "HTTP 200")]
        server.script = Script(form=form, http_status=202)
        assert stow.store(server.destination(), parcels, settings) == []
        server.script = Script(form=form, http_status=409)
        assert said(stow.store(server.destination(), parcels, settings)) == [(False, "HTTP 409")]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PeerRefused),
        (400, PeerRefused),
        (401, PeerRefused),
        (403, PeerRefused),
        (404, PeerRefused),
        (408, PeerUnavailable),
        (415, PeerRefused),
        (429, PeerUnavailable),
        (500, PeerUnavailable),
        (501, PeerRefused),
        (503, PeerUnavailable),
        (507, PeerUnavailable),
    ],
)
def test_http_statuses_are_later_or_no(
    settings: Settings, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    with stow_server(Script(http_status=status)) as server:
        with pytest.raises(error, match=f"HTTP {status}"):
            stow.store(server.destination(), make_parcels(tmp_path, 1), settings)
        with pytest.raises(error, match=f"HTTP {status}"):
            stow.echo(server.destination(), settings)


def test_echo(settings: Settings) -> None:
    with stow_server() as server:
        assert stow.echo(server.destination(), settings) > 0


def test_a_service_that_is_not_there_or_silent_is_unavailable(
    hasty: Settings, tmp_path: Path
) -> None:
    parcels = make_parcels(tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        where = Destination("stow", "STOW", None, None, None, f"http://127.0.0.1:{port}")
        with pytest.raises(PeerUnavailable, match="ReadTimeout"):
            stow.store(where, parcels, hasty)
    with pytest.raises(PeerUnavailable, match="ConnectError"):
        stow.store(where, parcels, hasty)
    with pytest.raises(PeerUnavailable):
        stow.store(dataclasses.replace(where, url="http://no-such-host.invalid"), parcels, hasty)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "127.0.0.1", "http://[::1"])
def test_a_url_that_cannot_be_used_is_refused(settings: Settings, tmp_path: Path, url: str) -> None:
    where = Destination("stow", "STOW", None, None, None, url)
    with pytest.raises(PeerRefused, match="URL"):
        stow.store(where, make_parcels(tmp_path, 1), settings)


def test_a_large_object(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 20 * 2**20)
    parcel = Parcel(uuid.uuid4(), dataset.SOPInstanceUID, dataset.SOPClassUID, "ab" * 32)
    with stow_server() as server:
        assert said(stow.store(server.destination(), [(parcel, path)], settings)) == [
            (True, "0x0000")
        ]
    assert server.received == [path.read_bytes()]
