"""The steps of the training demonstration, one after the other, each with what it shows and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from dicom_io.phantom import PhantomStudy
from gmic.study.settings import BETA
from node.cli import output
from workers import demo_train_site as site
from workers import demo_train_tables as tables
from workers.demo import Clock
from workers.demo_node import DemoNode
from workers.demo_train_admin import Admin, follow_training, wait_for_studies
from workers.errors import DemoFailed
from workers.readback import read_reports

FIRST, DATASET, BY = "gmic3d-phantom-coarse", "demo", "demo-administrator"
MIN_MALIGNANT = 3
"""Malignant breasts that a promotion by the rule asks for here; a node asks for 10 unless told otherwise."""
RECIPE = {
    "learning_rate": 1e-4,
    "beta": BETA,
    "schedule": "cosine",
    "slice_step": 3,
    "target_smoothing": 0.01,
    "clip_norm": 5.0,
    "metric": "mean",
}
"""Settings of the recipe `fine-tune`: those that the first model was trained with, and a lower learning rate."""


@dataclass(frozen=True)
class Scene:
    """What every step needs, and the summary that they fill."""

    out: Path
    node: DemoNode
    admin: Admin
    clock: Clock
    today: date
    summary: dict[str, Any] = field(default_factory=dict)
    steps: Iterator[int] = field(default_factory=lambda: count(1))

    def step(self, title: str) -> None:
        """The heading of the next step."""
        output.say(f"\n=== {next(self.steps)}. {title}")

    def send_and_wait(self, studies: list[PhantomStudy]) -> None:
        """Over DICOM associations, as a modality does; until the PACS has what the node made of them."""
        files = [path for study in studies for path in study.files]
        settings = self.node.settings
        where = f"{settings.listen_host} {settings.listen_port} --called {settings.ae_title}"
        output.say(f"$ tomonode send {where} ...  ({len(files)} files of {len(studies)} studies)")
        results = self.node.send(files)
        refused = [result for result in results if not result["accepted"]]
        if refused or len(results) != len(files):
            why = refused[0]["reason"] if refused else "the sender stopped"
            raise DemoFailed(f"{len(refused)} of {len(files)} files not accepted; {why}")
        uids = {study.study_instance_uid for study in studies}
        wait_for_studies(self.admin, uids, self.node.check_alive, settings.run_limit_s)


def first_model(scene: Scene, weights: Path) -> None:
    """A first version answers for the node; with nothing to compare it with, by an override."""
    scene.step("a first model")
    with scene.clock.stage("import and promote the first model"):
        licence = ("--licence", "demonstration only")
        scene.admin("model", "import", weights, "--name", FIRST, *licence, "--by", BY)
        reason = "the first model of this node: nothing to compare with"
        scene.admin("model", "promote", FIRST, "--override", "--reason", reason, "--by", BY)
        tables.models(scene.admin("model", "list").value)


def past(scene: Scene, studies: list[PhantomStudy]) -> None:
    """Studies of the past come in, and the first version reads them."""
    scene.step("studies come in and are read")
    with scene.clock.stage("receive and read the studies"):
        scene.send_and_wait(studies)
    scene.summary["studies"] = len(studies)


def label(scene: Scene, patients: list[site.Patient], studies: list[PhantomStudy]) -> None:
    """Pathology of some patients comes in, first as a dry run; the row of a stranger finds no study."""
    scene.step("pathology arrives")
    file = scene.out / "labels.csv"
    uids = [study.study_instance_uid for study in studies[: len(patients)]]
    rows = site.write_pathology(file, patients, uids)
    output.say(f"{file} has {rows} rows; breasts without one are negative, as their window passed")
    with scene.clock.stage("import the labels"):
        scene.admin("label", "import", file, "--dry-run", "--allow-unmatched", "--by", BY)
        report = scene.admin("label", "import", file, "--allow-unmatched", "--by", BY).value
    tables.labels(report)
    if report["counts"].get("matched") != rows - 1:
        raise DemoFailed(f"not every label found its study; {report['counts']}")
    scene.summary["labels"] = report["counts"]


def freeze(scene: Scene, patients: list[site.Patient], studies: list[PhantomStudy]) -> None:
    """A snapshot of everything so far; the study whose window is open is left out, and the node says why."""
    scene.step("a data set is frozen")
    days = (patients[0].study_date.isoformat(), scene.today.isoformat())
    with scene.clock.stage("freeze the data set"):
        frozen = scene.admin(
            *("dataset", "freeze", DATASET, "--since", days[0], "--until", days[1], "--by", BY)
        ).value
    tables.dataset(frozen)
    why = scene.admin("dataset", "why", studies[-1].study_instance_uid, "--dataset", DATASET).value
    tables.why(why)
    scene.summary["dataset"] = {name: frozen[name] for name in ("name", "content_hash", "counts")}


def train(scene: Scene, epochs: int) -> str:
    """Launch and follow; the candidate's name."""
    scene.step("the training queue fine-tunes")
    changes = [f"--set={name}={value}" for name, value in (RECIPE | {"epochs": epochs}).items()]
    with scene.clock.stage("train and evaluate"):
        launched = scene.admin(
            *("train", "launch", "--dataset", DATASET, "--recipe", "fine-tune", "--base", FIRST),
            *(*changes, "--by", BY),
        ).value
        settings = scene.node.settings
        page = follow_training(
            scene.admin, launched["id"], scene.node.check_alive, settings.run_limit_s
        )
    tables.epochs(page["epochs"])
    row = page["row"]
    output.say(f"candidate {row['model']}{'; ' if row['why'] else ''}{row['why']}")
    scene.summary["training"] = {
        **{
            name: row[name] for name in ("id", "state", "recipe", "base_version", "model", "used_s")
        },
        "settings": page["config"]["training"],
        "epochs": [epoch["metrics"] | {"seconds": epoch["seconds"]} for epoch in page["epochs"]],
    }
    return str(row["model"])


def compare(scene: Scene, candidate: str) -> dict[str, Any]:
    """The candidate beside the active version on the locked test split: the evaluation's summary."""
    scene.step("the candidate beside the active model")
    page = scene.out / "evaluation.html"
    with scene.clock.stage("compare"):
        row = scene.admin("model", "compare", candidate, "--dataset", DATASET, "--out", page).value
    figures: dict[str, Any] = row["summary"]
    tables.comparison(figures)
    output.say(f"the page: {page}")
    kept = ("against", "images", "breasts", "patients", "breast", "image", "operating_points")
    scene.summary["evaluation"] = {name: figures[name] for name in kept}
    return figures


def promote(scene: Scene, candidate: str, figures: dict[str, Any]) -> None:
    """By the rule where the evaluation carries it; else by an override, which says why it does not."""
    scene.step("a person promotes")
    there = figures["breast"]["malignant"]["positives"]
    output.say(
        f"the rule asks for {MIN_MALIGNANT} malignant breasts in the test split here, a node for 10; there are {there}"
    )
    with scene.clock.stage("promote"):
        wish = ("model", "promote", candidate, "--by", BY)
        asked = scene.admin(*wish, allowed=(0, 1))
        refusal = asked.complaint if asked.code else None
        if refusal is None:
            output.say("promoted by the rule")
        else:
            output.say(f"by the rule it is refused: {refusal}")
            reason = "a demonstration: a few phantoms cannot carry the rule"
            scene.admin(*wish, "--override", "--reason", reason)
            output.say(f"promoted by an override; the reason kept with it: {reason}")
        tables.models(scene.admin("model", "list").value)
    how = "rule" if refusal is None else "override"
    scene.summary["promotion"] = {"version": candidate, "by": how, "refusal": refusal}
    rule = figures["rule"]
    days = ("--since", rule["since"], "--until", rule["until"])
    old = scene.admin("study", "rerun", *days, "--dry-run").value["studies"]
    output.say(f"{len(old)} studies were read by {FIRST}; none is read again unless somebody asks")


def roll_back(scene: Scene) -> None:
    """Back to the first version."""
    scene.step("one command goes back")
    with scene.clock.stage("roll back"):
        reason = "the demonstration of a rollback"
        back = scene.admin("model", "rollback", "--reason", reason, "--by", BY).value
        tables.models(scene.admin("model", "list").value)
    if back["version"] != FIRST:
        raise DemoFailed(f"the rollback went to {back['version']}, not to {FIRST}")


def new_study(scene: Scene, number: int, wanted: str, when: str) -> None:
    """Send a study and look at its report at the PACS: it must name `wanted`.

    Raises:
        DemoFailed: no report, or it names another version.
    """
    scene.step(f"a new study {when}")
    patient = site.new_patient(number, scene.today)
    study = site.write_patient(scene.out / "phantom", patient)
    with scene.clock.stage(f"a new study {when}"):
        scene.send_and_wait([study])
    reports = read_reports(scene.node.pacs_folder, study.study_instance_uid)
    named = [report.model_version for report in reports]
    if named != [wanted]:
        raise DemoFailed(f"the report of the new study names {named or 'nothing'}, not {wanted}")
    report = reports[0]
    views = {e["sop_instance_uid"]: e for e in json.loads(study.truth.read_text())["files"]}
    tables.report(report, views)
    scene.summary.setdefault("reports", []).append(
        {
            "when": when,
            "study_instance_uid": study.study_instance_uid,
            "model_version": report.model_version,
            "file": report.path.name,
            "scores": report.scores,
        }
    )
