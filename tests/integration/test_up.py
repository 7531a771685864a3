"""`tomonode up` with real processes: all get ready, crashes are mended, all are gone at the end."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from node import redis_server
from node.errors import Conflict
from tests.conftest import make_settings
from tests.support.command import Started, all_gone, assert_one_line, environment, started, tomonode
from tests.support.services import wait_until

SERVICES = ("redis", "relay", "listener", "inference", "training", "delivery", "web")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "home"


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    return environment(home, LISTEN_PORT="0", WEB_PORT="0")


@pytest.fixture(scope="module")
def up(home: Path, env: dict[str, str]) -> Iterator[Started]:
    """One node for the tests of this file that leave it running."""
    with started("up", env=env, output=home.parent / "up.txt") as node:
        node.wait_for("node is up")
        yield node


def pid_of(node: Started, service: str) -> int:
    """The newest process id that `up` told of a service."""
    return int(re.findall(rf"^{service} +ready.*; pid (\d+)", node.output(), re.MULTILINE)[-1])


def test_every_service_is_told_with_its_address_and_has_a_log(up: Started, home: Path) -> None:
    said = up.output()

    for service in SERVICES:
        assert psutil.pid_exists(pid_of(up, service))
        assert (home / "log" / f"{service}.log").exists()
    assert re.search(r"listener .*DICOM TOMONODE at 127\.0\.0\.1:[1-9]\d+", said)
    assert re.search(r"web .*http://127\.0\.0\.1:[1-9]\d+/", said)
    assert "Research use only" in said
    assert "untrained" in said


def test_doctor_finds_nothing_wrong(up: Started, env: dict[str, str]) -> None:
    listen, web = (
        re.findall(rf"^{name} .*127\.0\.0\.1:(\d+)", up.output(), re.MULTILINE)[-1]
        for name in ("listener", "web")
    )
    known = {**env, "TOMONODE_LISTEN_PORT": listen, "TOMONODE_WEB_PORT": web}

    done = tomonode("doctor", env=known)

    assert done.returncode == 0, done.stdout
    assert "PROBLEM" not in done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_is_started_again(up: Started, service: str) -> None:
    before = pid_of(up, service)

    psutil.Process(before).kill()

    wait_until(lambda: pid_of(up, service) != before, 120, f"{service} to be ready again")
    assert f"{service:<12} ended; killed by SIGKILL" in up.output()


def test_workers_take_work_again_after_the_broker_came_back(up: Started, home: Path) -> None:
    settings = make_settings(home)
    before = pid_of(up, "redis")

    psutil.Process(before).kill()

    wait_until(lambda: pid_of(up, "redis") != before, 60, "Redis to be ready again")
    for queue in ("inference", "training", "delivery"):
        wait_until(lambda queue=queue: _connected(settings, queue), 60, f"{queue} worker")
    assert pid_of(up, "redis") != before


def _connected(settings: object, queue: str) -> bool:
    try:
        clients = redis_server.client(settings).client_list()  # type: ignore[arg-type]
    except redis.RedisError:
        return False
    return any(client["name"].startswith(f"{queue}-") for client in clients)


def test_a_second_up_on_the_same_home_is_refused(up: Started, env: dict[str, str]) -> None:
    done = tomonode("up", env=env)

    line = done.stderr.splitlines()
    assert done.returncode == 1
    assert len(line) == 1
    assert f"pid {up.process.pid}" in line[0]
    assert "TOMONODE_HOME" in line[0]


def test_a_second_redis_on_the_same_socket_is_refused(up: Started, home: Path) -> None:
    with pytest.raises(Conflict, match="already answers"):
        redis_server.prepare(make_settings(home))


def test_sigterm_ends_everything_and_up_can_start_again(up: Started, env: dict[str, str]) -> None:
    processes = up.descendants()

    code = up.end()

    assert code == 0
    assert "node is down" in up.output()
    assert len(processes) >= len(SERVICES)
    assert all_gone(processes)


@pytest.mark.parametrize("deep", [False, True], ids=["short path", "path too long for a socket"])
def test_killed_supervisor_takes_its_services_along(tmp_path: Path, deep: bool) -> None:
    home = tmp_path / ("d" * 120 if deep else "d")
    env = environment(home, LISTEN_PORT="0", WEB_PORT="0")
    with started("up", env=env, output=tmp_path / "up.txt") as node:
        node.wait_for("node is up")
        processes = node.descendants()

        node.end(signal.SIGKILL)

        assert all_gone(processes)
        redis_server.tidy(make_settings(home))
    with started("up", env=env, output=tmp_path / "again.txt") as node:
        node.wait_for("node is up")
        assert node.end(signal.SIGINT) == 0
    assert deep == (not make_settings(home).redis_socket.is_relative_to(home))
    assert not make_settings(home).redis_socket.exists()


@pytest.mark.parametrize("name", ["LISTEN_PORT", "WEB_PORT"])
def test_a_port_in_use_is_one_line(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"LISTEN_PORT": "0", "WEB_PORT": "0", name: port}
        done = tomonode("up", env=environment(tmp_path / "home", **ports))

    assert_one_line(done, 2, port, f"TOMONODE_{name}", "in use")


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    done = tomonode("up", env=environment(tmp_path / "file" / "home"))

    assert_one_line(done, 2, "file/home", "TOMONODE_HOME")


def test_a_redis_that_is_away_is_one_line(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    env = environment(tmp_path / "home", REDIS_URL=url, LISTEN_PORT="0", WEB_PORT="0")

    done = tomonode("up", env=env)

    assert done.stderr.count("\n") == 1
    assert done.returncode == 1
    assert "Redis" in done.stderr


def test_a_service_that_cannot_start_ends_up_with_its_reason(tmp_path: Path) -> None:
    env = environment(tmp_path / "home", LISTEN_PORT="0", WEB_PORT="0")

    done = tomonode("up", env={**env, "TOMONODE_ALLOWED_ADDRESSES": '["no address"]'})

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "listener ended" in done.stderr
    assert "listener.log" in done.stderr
