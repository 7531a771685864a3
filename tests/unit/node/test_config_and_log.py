"""Settings are read once and fail in one line; logs carry no patient attribute."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import structlog

from node import log
from node.config import Settings, child_environment, load_settings
from node.errors import ConfigError


def test_children_get_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_settings(
        home=tmp_path, expected_views=("L-CC",), check_called_ae=False, allowed_ae_titles=["MOD1"]
    )
    for name, value in child_environment(first).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == first


@pytest.mark.parametrize(
    ("name", "value"), [("LISTEN_PORT", "70000"), ("QUIET_S", "soon"), ("AE_TITLE", "A" * 17)]
)
def test_a_bad_setting_is_one_line_with_name_and_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TOMONODE_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    message = str(caught.value)
    assert f"TOMONODE_{name}" in message
    assert value in message
    assert "\n" not in message


def test_redis_socket_fits_the_system_limit_however_deep_home_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    assert len(str(load_settings(home=deep).redis_socket)) < 107


def test_log_lines_carry_no_patient_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    log.setup("debug", "test")
    with structlog.contextvars.bound_contextvars(study_id="s1", run_id="r1", patient_id="SECRET-1"):
        log.get().info(
            "claimed",
            patient_name="SECRET^NAME",
            birth_date="19500101",
            accession="SECRET-2",
            attempt=2,
        )
    __import__("logging").getLogger("pydicom").warning("Invalid value for VR PN: SECRET^NAME")
    text = out.getvalue()
    assert "SECRET" not in text
    assert "19500101" not in text
    line = json.loads(text.splitlines()[0])
    assert line["run_id"] == "r1"
    assert line["study_id"] == "s1"
    assert line["attempt"] == 2
    assert len(text.splitlines()) == 2


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    documented = set(re.findall(r"^\| `TOMONODE_(\w+)` \|", text, flags=re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields}


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMONODE_ALLOWED_ADDRESSES", "10.1.0.0/16, 127.0.0.1")
    assert load_settings().allowed_addresses == {"10.1.0.0/16", "127.0.0.1"}
