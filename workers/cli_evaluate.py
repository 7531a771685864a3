"""`tomonode evaluate`: how well models do, on tables of scores and on the public Duke set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.cli import output
from node.config import Settings, load_settings
from node.errors import ConfigError
from workers.published_options import NumPatches, PercentT, patches_of, top_t_of

app = typer.Typer(
    help="Evaluate models: AUC with intervals, calibration, detection, one HTML page."
)

Out = Annotated[Path, typer.Option("--out", help="Folder for report.json and report.html.")]


class Engine(StrEnum):
    """How the model computes (`gmic.inference.ENGINES`)."""

    EXACT = "exact"
    BFLOAT16 = "bfloat16"


EngineOption = Annotated[
    Engine | None,
    typer.Option("--engine", help="exact, or bfloat16: faster, and moves results a little."),
]


def settings_with(engine: Engine | None) -> Settings:
    """The settings, with another engine where one was given. Raises ConfigError."""
    return load_settings(**({} if engine is None else {"engine": engine.value}))


@app.command()
def scores(
    tables: Annotated[
        list[Path],
        typer.Argument(help="One or two CSV tables of scores.", exists=True, dir_okay=False),
    ],
    out: Out,
) -> None:
    """Report on one model's scores, or on two models' side by side (columns: docs/evaluation.md).

    Research use only, not for clinical use.
    """
    from gmic.evaluate import report
    from gmic.evaluate.scores import read_scores

    models = {table.stem: read_scores(table) for table in tables}
    if len(models) < len(tables):
        raise ConfigError(f"two tables are called {tables[0].stem!r}; the report needs two names")
    files = report.write_report(out, report.evaluate(models))
    output.say(f"report in {files[1]}; figures in {files[0]}")


@app.command()
def duke(
    paths: Annotated[Path, typer.Option(help="Table of file paths (CSV).", exists=True)],
    labels: Annotated[Path, typer.Option(help="Table of labels (CSV).", exists=True)],
    images: Annotated[Path, typer.Option(help="Folder that the paths start from.", exists=True)],
    out: Out,
    boxes: Annotated[
        Path | None, typer.Option(help="Table of boxes (CSV), for detection.", exists=True)
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Weights of ours, or published checkpoints; several are averaged. By default the node's.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    percent_t: PercentT = "",
    num_patches: NumPatches = "",
    draws: Annotated[int, typer.Option(min=0, help="Random augmentations; the paper's 10.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many images now.")] = None,
    pictures: Annotated[
        bool, typer.Option(help="Show images with lesions, and the worst cases.")
    ] = True,
    engine: EngineOption = None,
) -> None:
    """Run the paper's external evaluation on the public Duke set (BCS-DBT); goes on where it was stopped.

    Five published checkpoints without values are taken for the released ensemble, in its order.

    Research use only, not for clinical use.
    """
    from gmic.evaluate.duke import DukeTables
    from workers.duke import DukePlan, run_duke

    plan = DukePlan(
        DukeTables(paths, labels, images, boxes),
        tuple(weights or ()),
        draws,
        limit,
        pictures,
        top_t_of(percent_t),
        patches_of(num_patches),
    )
    outcome = run_duke(plan, out, settings_with(engine), output.say)
    output.say(f"{outcome.scored} images scored, {len(outcome.left_out)} left out")
    output.say(f"report in {outcome.report_html}")
