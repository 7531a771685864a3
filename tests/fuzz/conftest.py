"""One node, in processes of its own, for all fuzzers that talk to one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import make_settings
from tests.support.watched import Watched, watched


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A listener and a web server that have stored an object already."""
    home = tmp_path_factory.mktemp("fuzzed")
    with watched(make_settings(home / "var", max_associations=20)) as running:
        running.good(home)
        yield running
