"""The node's commands: the long-running services, sending, the database, the doctor."""

from __future__ import annotations

import threading
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from node import doctor as node_doctor
from node import log, processes, relay, schema
from node.cli import (
    blob,
    catalogue,
    commitment,
    conformance,
    dataset,
    delivery,
    drift,
    label,
    output,
    peer,
    pull,
    rules,
    study,
)
from node.cli.context import database, open_database
from node.config import load_settings
from node.model_version import model_version, model_version_2d
from node.rules import apply as routing
from node.supervisor import Supervisor

app = typer.Typer(
    help=(
        "Tomonode: a research node for digital breast tomosynthesis. Studies come in by C-STORE, a model reads them,"
        " DICOM SEG and SR go to the peers."
    ),
    epilog=(
        f"{output.RESEARCH_ONLY} Settings are environment variables, TOMONODE_HOME first of all"
        " (default ./var); see docs/settings.md."
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
)
db_app = typer.Typer(help="The database.")
app.add_typer(study.app, name="study")
app.add_typer(dataset.app, name="dataset")
app.add_typer(delivery.app, name="delivery")
app.add_typer(peer.app, name="peer")
app.add_typer(pull.app, name="pull")
app.add_typer(commitment.app, name="commitment")
app.add_typer(label.app, name="label")
app.add_typer(db_app, name="db")
app.add_typer(blob.app, name="blob")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(rules.app, name="rules")
app.command("drift")(drift.drift)
app.command("conformance")(conformance.conformance)

ReadyFd = Annotated[int | None, typer.Option("--ready-fd", hidden=True)]


def _show_version(wanted: bool) -> None:
    if wanted:
        output.say(f"tomonode {version('tomonode')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """The options before a command."""


@app.command()
def up(ready_fd: ReadyFd = None) -> None:
    """Run the whole node: listener, relay, workers, web, and a Redis of its own where none is configured.

    Makes and migrates the database, restarts what crashes, stops in order on Ctrl-C. Logs are in HOME/log.
    """
    settings = load_settings()
    model_version(settings)  # weights that cannot be read are said now, not by a worker's log
    model_version_2d(settings)
    if settings.blob_url:
        from node.remote import Remote  # fsspec, which one host can do without

        Remote(settings.blob_url)  # and so is a shared store that cannot be one
    if settings.weights is None:
        output.say(
            "no weights configured (TOMONODE_WEIGHTS): the built-in ones answer until a model version is active."
            " They are untrained: their scores mean nothing."
        )
    output.say(output.RESEARCH_ONLY)
    Supervisor(settings, output.say, lambda: processes.say_ready(ready_fd)).run()


@app.command()
def listen() -> None:
    """Run the listener: a DICOM Verification and Storage SCP."""
    from node import listener  # pynetdicom, which the other commands can do without

    settings = load_settings()
    with database(settings):
        pass
    log.setup(settings.log_level, process="listener")
    listener.run(settings)


@app.command("relay")
def relay_(ready_fd: ReadyFd = None) -> None:
    """Run the relay: it closes quiet studies and sends due work to the queues."""
    settings = load_settings()
    log.setup(settings.log_level, process="relay")
    with database(settings) as db, db.reading() as session:
        routing.in_force(session, settings)
    wanted = model_version(settings)
    stop = threading.Event()
    processes.stop_on_signals(stop)
    processes.say_ready(ready_fd)
    relay.run(settings, wanted, stop)


@app.command()
def web() -> None:
    """Run the web pages: studies, deliveries, models, data sets, trainings, drift; and /metrics."""
    from node.web import server  # FastAPI, which the other commands can do without

    settings = load_settings()
    with database(settings):
        pass
    log.setup(settings.log_level, process="web")
    server.run(settings)


@app.command()
def send(
    host: Annotated[str, typer.Argument(help="Host name or address of a Storage SCP.")],
    port: Annotated[int, typer.Argument(min=1, max=65535, help="Its port.")],
    files: Annotated[
        list[Path],
        typer.Argument(help="DICOM files, or folders, which are searched through.", exists=True),
    ],
    called_ae: Annotated[str, typer.Option("--called", help="AE title to call.")] = "TOMONODE",
    calling_ae: Annotated[str, typer.Option("--calling", help="AE title to give.")] = "TOMONODE",
    as_json: output.AsJson = False,
) -> None:
    """Send DICOM files by C-STORE, as they are, over one association; exit code 1 unless all were accepted."""
    from node.cli.sending import send_files

    send_files(host, port, files, called_ae, calling_ae, as_json)


@db_app.command("upgrade")
def db_upgrade() -> None:
    """Bring the database, empty or older, to the schema of this program."""
    settings = load_settings()
    schema.upgrade(settings.db_url)
    db = open_database(settings)
    output.say(f"database at schema {schema.current(db)}")
    db.dispose()


@app.command()
def doctor(as_json: output.AsJson = False) -> None:
    """Look at database, migrations, broker, disk, weights, peers, listener, web and workers, and say how to mend
    what is wrong; exit code 1 if anything is."""
    checks = list(node_doctor.examine(load_settings()))
    well = all(check.ok for check in checks)
    if as_json:
        output.as_json({"ok": well, "checks": [vars(check) for check in checks]})
    else:
        output.table(
            ("check", "", "found", "how to mend"),
            [(c.name, "ok" if c.ok else "PROBLEM", c.found, c.mend) for c in checks],
            "nothing to look at",
        )
    if not well:
        raise typer.Exit(1)
