"""`tomonode demo-train`: from pathology labels to a promoted model and back, through a node of its own.

Studies come in and are read by a first model; pathology comes in months later, as CSV; a data set is frozen; the
training queue fine-tunes; the candidate is measured beside the active model, promoted, and rolled back. Every step is
a command that an administrator could type (docs/demo-train.md); reports are read at the receiving PACS.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dicom_io.phantom import PhantomStudy
from node.cli import output
from node.config import Settings
from workers import demo_train_site as site
from workers import demo_train_steps as steps
from workers import demo_train_tables as tables
from workers.demo import Clock, clean, demo_settings, terminated_like_interrupted
from workers.demo_node import running
from workers.demo_train_admin import Admin
from workers.demo_train_steps import Scene
from workers.demo_train_weights import coarse_weights


@dataclass(frozen=True)
class Size:
    """How much: patients whose pathology is known by now, and epochs of the training at most."""

    patients: int
    epochs: int


def run_demo_train(out: Path, weights: Path, size: Size, base: Settings) -> None:
    """Run the demonstration.

    Args:
        out: folder for everything; emptied of what an earlier demonstration left.
        weights: of the first model: a narrow 3D-GMIC for full windows that averages 8 x 8 pixels (`gmic.study.ship`).
        size: how much.
        base: settings of the device and of the time-outs; addresses and folders are replaced.

    Raises:
        DemoFailed, NodeError, DicomIoError, GmicError: it did not come to its end; everything is stopped.
    """
    out = out.absolute()
    clean(out)
    clock, today = Clock(), date.today()
    with terminated_like_interrupted():
        with clock.stage("make the first model's weights"):
            first = coarse_weights(weights, out / "weights", steps.FIRST)
        patients = site.past_patients(size.patients, today)
        with clock.stage("make the phantom studies"):
            studies = _make(
                out / "phantom", [*patients, site.recent_patient(size.patients + 1, today)]
            )
        settings = _settings(base, out, weights.absolute())
        output.say("\nstarting a node and a receiving PACS")
        started = time.monotonic()
        with running(settings, out / "pacs", output.say) as node:
            clock.seconds["start node and PACS"] = time.monotonic() - started
            output.say(f"$ export TOMONODE_HOME={settings.home}")
            output.say(f"$ export TOMONODE_PROMOTION_MIN_MALIGNANT={steps.MIN_MALIGNANT}")
            scene = Scene(out, node, Admin(settings), clock, today)
            steps.first_model(scene, first)
            steps.past(scene, studies)
            steps.label(scene, patients, studies)
            steps.freeze(scene, patients, studies)
            candidate = steps.train(scene, size.epochs)
            figures = steps.compare(scene, candidate)
            steps.promote(scene, candidate, figures)
            steps.new_study(scene, size.patients + 2, candidate, "after the promotion")
            steps.roll_back(scene)
            steps.new_study(scene, size.patients + 3, steps.FIRST, "after the rollback")
        _end(scene)


def _settings(base: Settings, out: Path, weights: Path) -> Settings:
    return demo_settings(base, out).model_copy(
        update={
            "weights": weights,
            "training_folder": out / "home" / "training",
            "training_workers": 1,
            "promotion_min_malignant": steps.MIN_MALIGNANT,
            "two_person_promotion": False,
        }
    )


def _make(folder: Path, patients: list[site.Patient]) -> list[PhantomStudy]:
    output.say(f"making phantom studies of {len(patients)} patients, four views each")
    return [site.write_patient(folder, patient) for patient in patients]


def _end(scene: Scene) -> None:
    """The last table and summary.json; the images, which are large, are in the node's store still."""
    shutil.rmtree(scene.out / "phantom")
    seconds = {name: round(value, 2) for name, value in scene.clock.seconds.items()}
    document = {"notice": output.notice(tables.CAVEAT), **scene.summary, "seconds": seconds}
    summary = scene.out / "summary.json"
    summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    output.say("\n=== what happened")
    tables.story(scene.summary)
    tables.seconds(seconds)
    output.say()
    paths = {"summary": summary, "evaluation": scene.out / "evaluation.html"}
    again = f"TOMONODE_HOME={scene.out / 'home'} {output.command()} up"
    output.fields(paths | {"again": again})
    output.say()
    output.scores_notice(tables.CAVEAT)
