"""The configured engine answers studies; comparisons of versions are read by the exact one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gmic.engine.reduced import require_bfloat16
from gmic.errors import ConfigError as ModelConfigError
from node import schema
from node.blobs import BlobStore
from node.config import load_settings
from node.db import Database
from node.errors import ConfigError
from node.model_version import model_version
from tests.conftest import make_settings
from tests.support.versions import weights_file
from workers.models import Models, load_version


def test_studies_are_read_by_the_configured_engine_and_versions_compared_by_the_exact_one(
    tmp_path: Path,
) -> None:
    try:
        require_bfloat16(torch.device("cpu"))
    except ModelConfigError as error:
        pytest.skip(str(error))
    file = weights_file(tmp_path, 1)
    settings = make_settings(
        tmp_path / "home", threads=1, device="cpu", engine="bfloat16", weights=file
    )
    schema.upgrade(settings.db_url)
    db, blobs = Database(settings.db_url), BlobStore(settings.blob_root, settings.spool)
    try:
        version = model_version(settings)
        answering = Models(db, blobs, settings).get(version).identity
        compared = load_version(db, blobs, settings, version).identity
    finally:
        db.dispose()
    assert (answering.engine, compared.engine) == ("bfloat16", "exact")
    assert answering.algorithm().parameters["engine"] == "bfloat16"
    assert answering.card()["engine"] == "bfloat16"


def test_an_engine_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMONODE_ENGINE", "fast")
    with pytest.raises(ConfigError, match="TOMONODE_ENGINE='fast'"):
        load_settings()


def test_a_checkpoint_as_the_configured_weights_is_named_as_what_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.p")
    settings = make_settings(tmp_path, weights=tmp_path / "model.p")
    with pytest.raises(ConfigError, match=r"model\.p are a PyTorch checkpoint.*convert it with"):
        model_version(settings)
