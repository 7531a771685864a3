"""Fixtures every test may use: settings under a temporary folder, migrated databases, real Redis."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from node import schema
from node.config import Settings
from node.db import Database
from tests.support.databases import Postgres, postgres
from tests.support.services import redis_server
from tests.support.shared import ABSENT

_folders = itertools.count()

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would do the same.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=(hypothesis.HealthCheck.too_slow,)
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs() -> None:
    """What runs inside the test process logs errors alone; processes of the node log to their own files."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; ask it for a new database."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One Redis for all tests that need a broker and no trouble with it."""
    with redis_server() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an embedded node in a folder of its own, with short times."""
    return make_settings(tmp_path)


def make_settings(home: Path, **overrides: object) -> Settings:
    """Short times, a free port, no disk reserve; environment variables do not reach it."""
    values: dict[str, object] = {
        "home": home,
        "listen_port": 0,
        "web_port": 0,
        "disk_reserve_mb": 0,
        "quiet_s": 1.0,
        "views_quiet_s": 0.2,
        "tick_s": 0.2,
        "redispatch_s": 5.0,
        "lease_s": 3.0,
        "retry_base_s": 0.2,
        "retry_cap_s": 1.0,
        **overrides,
    }
    return Settings(_env_file=None, **values)  # type: ignore[arg-type,call-arg]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def any_settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings on each database engine in turn."""
    return make_settings(tmp_path, database_url=database_url)


@pytest.fixture
def db(any_settings: Settings) -> Iterator[Database]:
    """A migrated database on each engine in turn."""
    schema.upgrade(any_settings.db_url)
    database = Database(any_settings.db_url)
    yield database
    database.dispose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Where system packages were installed on purpose, a test that needs them must not skip.

    The reference data is another matter: who clones the repository does not have it.
    """
    report = yield
    required = os.environ.get("TOMONODE_REQUIRE_SYSTEM") and item.get_closest_marker("system")
    no_data = call.excinfo is not None and str(call.excinfo.value).startswith(ABSENT)
    if report.skipped and required and not no_data:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} skipped although its packages are installed: {report.longrepr}"
        )
    return report
