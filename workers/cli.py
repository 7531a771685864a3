"""The command `tomonode`: the node's commands and those that need the model, which is imported only inside them."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gmic.errors import GmicError
from node.cli import boundary, output
from node.cli.app import ReadyFd, app
from node.cli.context import database
from node.config import load_settings
from node.errors import ConfigError
from node.processes import say_ready
from node.results import KINDS, USUAL, chosen
from workers import cli_evaluate, cli_model, cli_train
from workers.errors import WorkerError

TRUSTED = (GmicError, WorkerError)
"""Errors whose words are one line for people; the boundary knows those of `node` and `dicom_io`."""


app.add_typer(cli_evaluate.app, name="evaluate")
app.add_typer(cli_model.app, name="model")
app.add_typer(cli_train.app, name="train")


class Queue(StrEnum):
    """The queues a worker can take from (`node.outbox.QUEUES`)."""

    INFERENCE = "inference"
    DELIVERY = "delivery"
    TRAINING = "training"


class Lesion(StrEnum):
    """What a phantom can hold."""

    MALIGNANT = "malignant"
    BENIGN = "benign"
    NONE = "none"


class Syntax(StrEnum):
    """Transfer syntaxes of a phantom (`dicom_io.phantom.SYNTAXES`)."""

    EXPLICIT = "explicit"
    JPEG2000 = "jpeg2000"
    JPEGLS = "jpegls"
    RLE = "rle"


class Breast(StrEnum):
    """The breast that holds the lesion."""

    LEFT = "L"
    RIGHT = "R"


@app.command()
def worker(
    queue: Annotated[Queue, typer.Option(help="The queue to take work from.")],
    ready_fd: ReadyFd = None,
) -> None:
    """Run a worker: inference runs the model, training trains one, delivery sends results to the peers."""
    from workers.app import run_worker

    settings = load_settings()
    with database(settings):
        pass
    raise typer.Exit(run_worker(settings, queue.value, partial(say_ready, ready_fd)))


@app.command()
def predict(
    files: Annotated[
        list[Path],
        typer.Argument(help="DICOM files, or folders, which are searched through.", exists=True),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    engine: cli_evaluate.EngineOption = None,
    kinds: Annotated[
        str,
        typer.Option(
            "--results", help=f"Kinds besides SEG and SR, with commas: {', '.join(KINDS)}."
        ),
    ] = ",".join(USUAL),
    as_json: output.AsJson = False,
) -> None:
    """Read DICOM files, run the model, write SEG, SR, pictures and summary.json: no database, no queue.

    Research use only, not for clinical use.
    """
    from workers.predict import predict_files

    say = (lambda _line: None) if as_json else output.say
    settings = cli_evaluate.settings_with(engine)
    summary = predict_files(files, out, settings, say, kinds=chosen(kinds.split(",")))
    if as_json:
        output.as_json(summary)
        return
    rows = [
        (f"{image['laterality'] or '?'}-{image['view'] or '?'}", image["score_malignant"],
         image["score_benign"], image["segments"], image["excluded_reason"])
        for study in summary["studies"] for image in study["images"]
    ]  # fmt: skip
    output.table(("view", "malignant", "benign", "segments", "left out"), rows, "no images")
    output.scores_notice(summary["model"]["caveat"])
    output.say(f"summary in {out / 'summary.json'}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the files and truth.json.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same files.")] = 1,
    views: Annotated[str, typer.Option(help="Which views.")] = "L-CC,L-MLO,R-CC,R-MLO",
    slices: Annotated[int, typer.Option(min=1, help="Slices of each view.")] = 24,
    size: Annotated[str, typer.Option(help="ROWSxCOLUMNS of a slice.")] = "2457x1890",
    lesion: Annotated[Lesion, typer.Option(help="What to put in.")] = Lesion.MALIGNANT,
    breast: Annotated[Breast, typer.Option(help="Where to put it.")] = Breast.LEFT,
    syntax: Annotated[Syntax, typer.Option(help="Transfer syntax.")] = Syntax.EXPLICIT,
) -> None:
    """Write a phantom study: valid tomosynthesis DICOM of made-up breasts with a known lesion, and truth.json."""
    from workers.phantom import PhantomPlan, write_phantom

    rows, columns = _size(size)
    plan = PhantomPlan(
        seed=seed,
        views=tuple(view.strip().upper() for view in views.split(",")),
        shape=(slices, rows, columns),
        lesion=None if lesion is Lesion.NONE else lesion.value,
        breast=breast.value,
        syntax=syntax.value,
    )
    study = write_phantom(out, plan, output.say)
    output.say(f"study {study.study_instance_uid}: {len(study.files)} files and {study.truth}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise ConfigError(f"size {text!r} cannot be used; give ROWSxCOLUMNS, such as 2457x1890")
    return int(match[1]), int(match[2])


@app.command()
def demo(
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="Your own DICOM files in place of a phantom.", exists=True),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path("demo-out"),
    slices: Annotated[int, typer.Option(min=1, help="Slices of each phantom view.")] = 32,
) -> None:
    """Show the whole journey: start a node and a receiving PACS, send a study, wait for SEG and SR, read them back.

    Everything it starts listens on the loopback interface and stops with it. Research use only, not for clinical use.
    """
    from workers.demo import run_demo

    run_demo(out, input_, slices, load_settings())


@app.command()
def demo_train(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path(
        "demo-train-out"
    ),
    patients: Annotated[
        int, typer.Option(min=6, max=500, help="Phantom patients with known pathology.")
    ] = 40,
    epochs: Annotated[int, typer.Option(min=1, help="Of the training, at most.")] = 8,
    weights: Annotated[
        Path | None,
        typer.Option(help="Demonstration weights of the first model, in place of those shipped."),
    ] = None,
) -> None:
    """Show how a model gets better: studies, labels, a data set, training, comparison, promotion, rollback.

    Everything it starts listens on the loopback interface and stops with it. Research use only, not for clinical use.
    """
    from workers.demo import DEMONSTRATION
    from workers.demo_train import Size, run_demo_train

    run_demo_train(out, weights or DEMONSTRATION, Size(patients, epochs), load_settings())


def main() -> None:
    """The console script."""
    sys.exit(boundary.run(app, trusted=TRUSTED))


if __name__ == "__main__":
    main()
