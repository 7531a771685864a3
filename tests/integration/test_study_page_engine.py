"""A study's page names the engine that read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node import runs, schema
from node.db import Database
from node.runs import Outcome
from tests.conftest import make_settings
from tests.support.factory import Factory
from tests.support.web import served


@pytest.mark.parametrize("engine", ["exact", "bfloat16"])
def test_the_engine_of_a_result_is_on_its_page(tmp_path: Path, engine: str) -> None:
    settings = make_settings(tmp_path)
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    try:
        factory = Factory(db, settings)
        study_uid, run_id = factory.queued()
        model = {"name": "3D-GMIC", "version": "1", "trained": True, "engine": engine}
        assert runs.succeed(db, factory.claim(run_id), Outcome(model, [], []), settings)
        with served(settings) as client:
            page = client.get(f"/studies/{study_uid}").text
    finally:
        db.dispose()
    assert re.search(rf"<dt>Engine</dt>\s*<dd>{engine}</dd>", page)
