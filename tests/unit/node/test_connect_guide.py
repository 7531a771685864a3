"""The guides say what is so: every command with its options, every setting, every example of a rule, every link."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from node.config import Settings
from node.results import chosen
from node.rules.parse import parse
from workers.cli import app

_DOCS = Path(__file__).parents[3] / "docs"
_PAGES = ("connect.md", "rules.md")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(tomonode [^`]+)`")


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind."""
    text = (_DOCS / page).read_text()
    return [body for found, body in _FENCE.findall(text) if found == kind]


def commands() -> list[tuple[str, str]]:
    """Every command line of ours: in a block, or in a sentence."""
    found = [
        (page, line)
        for page in _PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.startswith("tomonode ")
    ]
    return found + [
        (page, line) for page in _PAGES for line in _INLINE.findall((_DOCS / page).read_text())
    ]


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_is_there_with_these_options(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="tomonode")
    while isinstance(command, TyperGroup):
        inner = command.get_command(context, words.pop(0)) if words else None
        assert inner is not None, f"{page}: {line}"
        context = typer.Context(inner, parent=context, info_name=inner.name)
        command = inner  # type: ignore[assignment]
    in_sentence = f"`{line}`" in (_DOCS / page).read_text()
    options, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{page}: {line}"
    missing = [
        one.name
        for one in command.params
        if one.required and one.nargs == 1 and options.get(str(one.name)) in (None, [], ())
    ]
    assert in_sentence or not missing, f"{page}: {line}"
    if isinstance(options.get("results"), str):
        chosen(options["results"].split(","))


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("page", _PAGES)
def test_every_setting_that_is_named_is_there(page: str) -> None:
    text = (_DOCS / page).read_text()
    named = {name.lower() for name in re.findall(r"TOMONODE_([A-Z][A-Z_]+)", text)}

    assert named - set(Settings.model_fields) <= {"env_file"}


def test_settings_in_blocks_can_be_used(tmp_path: Path) -> None:
    pairs = [
        line.split("=", 1)
        for block in blocks("connect.md", "")
        for line in block.splitlines()
        if line.startswith("TOMONODE_")
    ]
    assert pairs
    env = tmp_path / "settings.env"
    env.write_text("\n".join("=".join(pair) for pair in pairs))

    settings = Settings(_env_file=env)  # type: ignore[call-arg]

    assert settings.listen_tls_port == 2762
    assert settings.allowed_ae_titles == {"MAMMO1", "MAMMO2", "PACS", "ROUTER"}


@pytest.mark.parametrize("page", _PAGES)
def test_every_example_of_rules_is_without_fault(page: str) -> None:
    examples = blocks(page, "toml")

    assert examples
    for example in examples:
        found = parse(example, page, None)
        assert not found.faults
        assert found.rules


@pytest.mark.parametrize("page", [*_PAGES, "conformance.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    for name, anchor in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", (_DOCS / page).read_text()):
        target = _DOCS / (name or page)
        assert target.exists(), name
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}
            assert anchor[1:] in slugs
