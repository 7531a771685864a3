"""`tomonode rules`: which study goes where, tried before it is in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from dicom_io.errors import UnreadableDataset
from dicom_io.header import read_header
from dicom_io.recognise import kind_of
from node import destinations, registry
from node.cli import output
from node.cli.context import database
from node.cli.sending import has_dicom_prefix
from node.config import Settings, load_settings
from node.errors import ConfigError, NodeError
from node.ingest import IMAGES
from node.model_version import model_version
from node.rules import apply as routing
from node.rules import facts
from node.rules.judge import Judgement, judge
from node.rules.model import ACTIVE, NONE, Facts, Image, Known, Rule, tags

app = typer.Typer(help="Routing rules: which studies which model reads, and who gets the results.")

AsFile = Annotated[
    Path | None, typer.Option("--rules", help="A rules file in place of TOMONODE_RULES.")
]


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A rules file in place of TOMONODE_RULES.")
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Look for faults in the routing rules, names of peers and model versions too; exit code 1 if there are any."""
    settings = load_settings()
    path = file or settings.rules
    if path is None:
        raise ConfigError(
            "no rules file; set TOMONODE_RULES, or name one: `tomonode rules check FILE`"
        )
    with _node(settings) as (_, known, why):
        found = routing.read(path, known)
    if as_json:
        output.as_json(
            {
                "file": path,
                "rules": [rule.name for rule in found.rules],
                "faults": found.faults,
                "names_looked_up": known is not None,
            }
        )
    else:
        for fault in found.faults:
            output.warn(fault)
        if why:
            output.warn(why)
        output.say(f"{path}: {len(found.rules)} rules, {len(found.faults)} faults")
    if found.faults:
        raise typer.Exit(1)


@app.command("test")
def try_(
    files: Annotated[
        list[Path],
        typer.Argument(help="DICOM files, or folders, which are searched through.", exists=True),
    ],
    rules: AsFile = None,
    calling_ae: Annotated[
        str | None, typer.Option("--from", help="AE title that the study would come from.")
    ] = None,
    pulled: Annotated[
        bool, typer.Option("--pulled", help="As if the node had fetched the study itself.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Say of each study in DICOM files which rule it falls under and why not under those before, which model reads it,
    and who gets what. Nothing is sent or kept; exit code 1 for a fault in the rules or a file that cannot be read."""
    settings = load_settings()
    path = rules or settings.rules
    with _node(settings) as (session, known, why):
        found = None if path is None else routing.read(path, known)
        if found is not None and found.faults:
            for fault in found.faults:
                output.warn(fault)
            raise typer.Exit(1)
        in_order = found.rules if found is not None else ()
        studies, unreadable = _studies(files, in_order, calling_ae, pulled)
        told = [_told(one, judge(in_order, one.facts), session, settings) for one in studies]
    if as_json:
        output.as_json({"studies": told, "unreadable": unreadable, "names_looked_up": not why})
    else:
        if why:
            output.warn(why)
        for one in told:
            _say(one)
    for line in unreadable:
        output.warn(f"tomonode: {line}")
    if unreadable or not told:
        if not told and not unreadable:
            output.warn("tomonode: no DICOM file in these folders; give others")
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Study:
    """A study as far as these files hold it."""

    study_uid: str
    objects: int
    facts: Facts


@contextmanager
def _node(settings: Settings) -> Iterator[tuple[Session | None, Known | None, str]]:
    """A session and the names that rules may use; where the database cannot be asked, neither, and why."""
    session: Session | None = None
    known: Known | None = None
    why = ""
    with ExitStack() as stack:
        try:
            db = stack.enter_context(database(settings))
            session = stack.enter_context(db.reading())
            known = routing.known(session, settings)
        except NodeError as error:
            why = f"names of peers and versions are not looked up: {error}"
        yield (session if known else None), known, why


def _studies(
    files: list[Path], rules: tuple[Rule, ...], calling_ae: str | None, pulled: bool
) -> tuple[list[_Study], list[str]]:
    """The studies in these files, and a line for each file that cannot be read."""
    wanted = tags(rules)
    images: dict[str, list[Image]] = {}
    views: dict[str, set[str]] = {}
    objects: dict[str, int] = {}
    unreadable: list[str] = []
    for path in _paths(files):
        try:
            header = read_header(path)
            values = facts.values(path, wanted)
        except (UnreadableDataset, OSError) as error:
            unreadable.append(f"{path}: {error}")
            continue
        uid = header.study_instance_uid
        objects[uid] = objects.get(uid, 0) + 1
        images.setdefault(uid, [])
        views.setdefault(uid, set())
        if kind_of(header) not in IMAGES:
            continue
        images[uid].append(Image(calling_ae, values))
        if header.laterality and header.view:
            views[uid].add(f"{header.laterality}-{header.view}")
    found = [
        _Study(uid, objects[uid], Facts(tuple(images[uid]), frozenset(views[uid]), pulled))
        for uid in objects
    ]
    return found, unreadable


def _paths(files: list[Path]) -> Iterator[Path]:
    for path in files:
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file() and has_dicom_prefix(p))
        else:
            yield path


def _told(
    study: _Study, judgement: Judgement, session: Session | None, settings: Settings
) -> dict[str, Any]:
    """What would become of a study, for people and programs."""
    rule = judgement.rule
    wanted = rule.then.model if rule else ACTIVE
    if not study.facts.images or (rule is None and study.facts.pulled):
        wanted = NONE
    read = wanted != NONE
    route = rule.frozen() if rule else None
    sent: dict[str, Any] = {}
    if read and session is not None:
        peers, _ = destinations.of_run(session, route)
        sent = {peer.name: list(destinations.kinds_of(peer, route)) for peer in peers}
    elif read and rule is not None:
        sent = {
            name: list(rule.then.results.get(name, ())) for name in rule.then.destinations or ()
        }
    return {
        "study_uid": study.study_uid,
        "objects": study.objects,
        "images": len(study.facts.images),
        "views": sorted(study.facts.views),
        "rule": rule.name if rule else None,
        "passed_over": [{"rule": other.name, "why": why} for other, why in judgement.passed_over],
        "model": wanted,
        "version": _version(wanted, session, settings),
        "destinations": sent,
    }


def _version(wanted: str, session: Session | None, settings: Settings) -> str | None:
    if wanted == NONE:
        return None
    if wanted != ACTIVE:
        return wanted
    configured = model_version(settings)
    return configured if session is None else registry.answering(session, configured)


def _say(told: dict[str, Any]) -> None:
    output.say(f"study {told['study_uid']}")
    why = {
        "objects": f"{told['objects']}, {told['images']} of them images for the model",
        "views": told["views"],
        "rule": told["rule"] or "none matches",
    }
    for other in told["passed_over"]:
        why[f"not {other['rule']}"] = other["why"]
    why["model"] = told["version"] if told["model"] != NONE else _no_model(told)
    if told["model"] != NONE:
        why["sent"] = (
            "; ".join(
                f"{peer}: {', '.join(kinds) or 'what the peer is set to get'}"
                for peer, kinds in told["destinations"].items()
            )
            or "to nobody"
        )
    output.fields(why)
    output.say()


def _no_model(told: dict[str, Any]) -> str:
    if not told["images"]:
        return "none: nothing in it that the model reads"
    return "none: the rule says so" if told["rule"] else "none: the study was fetched from a peer"
