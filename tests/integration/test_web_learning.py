"""Pages of models, data sets, trainings and drift, and /metrics, over real HTTP on rows the node's functions made."""

from __future__ import annotations

import html
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime

import httpx
import pytest

from node import registry, reruns, studies, trainings
from node.cli import boundary
from node.cli.app import app
from node.config import Settings, child_environment
from node.datasets import store as datasets
from node.datasets.content import content_hash, counts
from node.db import Database, now
from node.input_quality import Measured
from node.labels import store
from node.learning_models import Dataset, DatasetExclusion, DatasetItem, TrainingRun
from node.lifecycle import TrainingState
from node.promotion import Signed, Terms
from node.trainings import Holder, Request
from node.views.drift import scored
from node.web.trainings import RECIPES
from tests.support import learning, versions
from tests.support.factory import Factory
from tests.support.web import served
from workers import recipes

HOSTILE = "<script>alert(1)</script>"
SAMPLE = re.compile(r'^(tomonode_\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (-?[\d.e+-]+)$')


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    names = ("quiet_s", "lease_s", "retry_base_s", "retry_cap_s", "redispatch_s")
    return Factory(db, any_settings.model_copy(update=dict.fromkeys(names, 600.0)))


@pytest.fixture
def client(factory: Factory) -> Iterator[httpx.Client]:
    with served(factory.settings) as opened:
        yield opened


def words(answer: httpx.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def freeze(factory: Factory, name: str = "d2026") -> uuid.UUID:
    """A data set of three images, with its counts."""
    items = [
        DatasetItem(
            sop_uid=f"1.2.{number}", sop_class_uid="1", sha256=f"{number}" * 64, study_uid=f"1.{number}",
            patient=f"p{number}", laterality="L", split=split, benign=False, malignant=number == 1, strata={},
        )
        for number, split in enumerate(("train", "valid", "test"))
    ]  # fmt: skip
    left_out = [
        DatasetExclusion(study_uid=f"9.{number}", code="window-open", reason="pathology may come")
        for number in range(7)
    ]
    row = Dataset(
        id=uuid.uuid4(), name=name, rule=versions.RULE, content_hash=content_hash(versions.RULE, items, left_out),
        counts=counts(items, left_out), created_by="tester", created_at=datetime.now(UTC),
    )  # fmt: skip
    for one in (*items, *left_out):
        one.dataset_id = row.id
    with factory.db.transaction() as session:
        assert datasets.save(session, row, items, left_out)
    return row.id


def launch(factory: Factory, dataset_id: uuid.UUID, seed: int = 0) -> uuid.UUID:
    wanted = Request(dataset_id, "from-scratch", {"training": {"epochs": 3}}, seed, None, "1")
    with factory.db.transaction() as session:
        run, _ = trainings.request(session, wanted, factory.settings, "ann", now(session))
        return run.id


def state(factory: Factory, run_id: uuid.UUID) -> str:
    with factory.db.reading() as session:
        return session.get_one(TrainingRun, run_id).state


def test_empty_pages_say_what_to_do(client: httpx.Client) -> None:
    for path, said in {
        "/models": "tomonode model import",
        "/datasets": "tomonode dataset freeze",
        "/trainings": "No trainings yet",
        "/drift": "No scores yet. ",
    }.items():
        page = client.get(path)
        assert page.status_code == 200
        assert said.strip() in words(page)
        assert "Research use only" in words(page)


def test_models_show_states_figures_and_who_decided_why(
    factory: Factory, client: httpx.Client
) -> None:
    page_of = factory.store.write(b"<!doctype html><style>p{color:red}</style><p>the figures")
    with factory.db.transaction() as session:
        first = versions.register(session, "first", trained=False)
        registry.promote(
            session, "first", Signed("ann", "bob", HOSTILE, True), Terms.of(factory.settings), now(session)
        )  # fmt: skip
        second = versions.register(session, "a/b second", operating_points={"segment": 0.25})
        dataset = versions.freeze(session, "locked")
        measured = versions.evaluate(session, second, first, dataset)
        measured.report_sha256 = page_of
        lost = versions.evaluate(session, second, first, dataset, minutes=-1)
    listed = client.get("/models")
    text = words(listed)
    assert "active first untrained: its scores mean nothing not evaluated" in text
    assert "promote by ann, approved by bob" in text
    assert "overridden" in text
    assert HOSTILE not in listed.text
    assert "candidate a/b second 0.800 (0.700 to 0.900) page on locked +0.050" in text
    assert 'href="/models/a%2Fb%20second"' in listed.text
    text = words(client.get("/models/a%2Fb%20second"))
    assert "segment 0.25" in text
    assert "register" in text
    assert "tester" in text
    report = client.get(f"/evaluations/{measured.id}")
    assert report.content.endswith(b"the figures")
    policy = report.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert policy.endswith("sandbox")
    assert "script-src" not in policy
    assert report.headers["x-content-type-options"] == "nosniff"
    answer = client.get(f"/evaluations/{lost.id}")
    assert answer.status_code == 404
    assert "not in the blob store" in words(answer)
    for path in ("/models/nobody", f"/evaluations/{uuid.uuid4()}", "/evaluations/x"):
        assert client.get(path).status_code == 404


def test_data_sets_show_counts_hash_and_exclusions(factory: Factory, client: httpx.Client) -> None:
    found = freeze(factory)
    text = words(client.get("/datasets"))
    with factory.db.reading() as session:
        assert session.get_one(Dataset, found).content_hash in text
    assert "Left out: window-open 7" in text
    assert "valid 1 1 1 1 0 0 1 0" in text
    assert "test has no malignant breast" in text


def test_a_training_is_shown_with_its_curve_and_log(factory: Factory, client: httpx.Client) -> None:
    run_id = launch(factory, freeze(factory))
    assert "queued" in words(client.get("/trainings"))
    held = trainings.claim(factory.db, run_id, Holder("training-1@host", "host"), factory.settings)
    assert held is not None
    for epoch, metric in ((1, 0.5), (2, 0.75)):
        metrics = {"epoch": epoch, "loss": 1 / epoch, "metric": metric}
        assert trainings.record_epoch(factory.db, held, "fit", metrics, 2.5)
    folder = factory.settings.training_root / "runs" / str(run_id)
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(f"fit: epoch 2 {HOSTILE}\n")
    page = client.get(f"/trainings/{run_id}")
    assert re.findall(r'points="([^"]+)"', page.text) == [
        "0.0,90.0 300.0,0.0",  # the metric rose
        "0.0,0.0 300.0,90.0",  # the loss fell
    ]
    assert "attempt 1 of 5 on training-1@host" in words(page)
    assert "fit 2 0.5000 0.7500 2.5" in words(page)
    assert "fit: epoch 2 &lt;script&gt;" in page.text
    assert HOSTILE not in page.text
    assert "style=" not in page.text
    assert client.get(f"/trainings/{uuid.uuid4()}").status_code == 404


def test_trainings_are_paused_resumed_and_cancelled(factory: Factory, client: httpx.Client) -> None:
    run_id = launch(factory, freeze(factory))
    path = f"/trainings/{run_id}"
    for wish, expected in (("pause", "PAUSED"), ("resume", "QUEUED"), ("cancel", "CANCELLED")):
        assert f'action="{path}/{wish}"' in client.get(path).text
        answer = client.post(f"{path}/{wish}", headers={"Referer": f"{client.base_url}/trainings"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/trainings")
        assert state(factory, run_id) == expected
    assert "/cancel" not in client.get(path).text
    answer = client.post(f"{path}/retry")
    assert answer.status_code == 409
    assert "only a failed one can be retried" in words(answer)
    assert client.get(f"{path}/retry").headers["location"] == path
    assert client.post(f"{path}/explode").status_code in (404, 405)
    assert client.post(f"/trainings/{uuid.uuid4()}/pause").status_code == 404


def test_changes_of_trainings_come_from_our_pages_alone(
    factory: Factory, client: httpx.Client
) -> None:
    run_id = launch(factory, freeze(factory))
    form = {"dataset": "d2026", "by": "eve"}
    for origin in ("http://evil.example", "null", ""):
        for path in (f"/trainings/{run_id}/cancel", "/trainings/launch"):
            answer = client.post(path, data=form, headers={"Origin": origin})
            assert answer.status_code == 403
    assert state(factory, run_id) == TrainingState.QUEUED
    assert client.post("/trainings/launch", data={"dataset": "d2026", "by": " "}).status_code == 400
    answer = client.post("/trainings/launch", data={"dataset": "a\nb", "by": "eve"})
    assert answer.status_code == 400
    assert "dataset has 3 characters; give one line" in words(answer)


# a launch is a process that loads torch: on one engine
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_form_launches_once_or_says_why_not(factory: Factory, client: httpx.Client) -> None:
    learning.dataset(factory.db, factory.settings)
    learning.base_version(factory.db, factory.settings)
    form = {
        "dataset": "tiny", "recipe": "fine-tune", "base": learning.BASE, "seed": "3", "by": "--ann",
        "changes": "epochs=1 batch=2",
    }  # fmt: skip
    shown = client.get("/trainings/launch").text
    assert "<option selected>" not in shown
    assert "<option>tiny</option>" in shown
    answer = client.post("/trainings/launch", data=form)
    assert answer.status_code == 303, words(answer)
    page = client.get(answer.headers["location"])
    assert "queued" in words(page)
    run_id = uuid.UUID(answer.headers["location"].rsplit("/", 1)[1])
    with factory.db.reading() as session:
        row = session.get_one(TrainingRun, run_id)
        assert (row.requested_by, row.seed, row.config["training"]["epochs"]) == ("--ann", 3, 1)
    refused = client.post("/trainings/launch", data={**form, "dataset": "nobody"})
    assert refused.status_code == 409
    assert "no data set 'nobody'" in words(refused)
    assert 'value="epochs=1 batch=2"' in refused.text
    assert tuple(recipes.RECIPES) == RECIPES


def read(
    factory: Factory, malignant: float, month: str = "202603", measured: Measured | None = None
) -> tuple[str, uuid.UUID]:
    """A study of one left view that was read."""
    study_uid = factory.receive(["L-CC", "L-MLO"], study_date=f"{month}01")
    run_id = factory.close(study_uid)
    scores = {"L-CC": malignant, "L-MLO": malignant / 2}
    factory.succeed(run_id, scores, measured=measured)
    return study_uid, run_id


def test_drift_shows_scores_input_and_late_outcomes(factory: Factory, client: httpx.Client) -> None:
    for malignant, found in ((0.8, True), (0.4, False)):
        study_uid, _ = read(factory, malignant)
        with factory.db.transaction() as session:
            store.add_pathology(
                session, studies.find(session, study_uid), "L", benign=not found, malignant=found,
                found_on=date(2026, 3, 20), source="ris", author="ann", at=now(session),
            )  # fmt: skip
    read(factory, 0.2, "202604")
    study_uid, _ = read(factory, 0.2, "000000")
    text = words(client.get("/drift"))
    assert "2026-04 3d-gmic-untrained-seed7 1 0.150" in text
    assert "2026-03 3d-gmic-untrained-seed7 2 0.450" in text  # the mean over views, their median
    assert "reference" in text
    assert "1 breasts of studies without a date" in text
    assert "3d-gmic-untrained-seed7 all 2 1 1 0 1.000 (" in text
    assert "2026-03 2 0 % (0 to 66) 4 0 % (0 to 49)" in text
    gauges = client.get("/metrics").text
    of = 'model_version="3d-gmic-untrained-seed7",trained="true"'
    assert f'tomonode_late_outcomes{{{of},finding="malignant"}} 1' in gauges
    assert f'tomonode_late_outcomes{{{of},finding="benign"}} 1' in gauges
    assert f'tomonode_late_malignant_auc{{{of},end="value"}} 1' in gauges
    assert "no image here was measured" in text
    assert "of others they are not known" in text
    assert "mean nothing" not in text
    _, run_id = factory.queued()
    factory.succeed(run_id, trained=False)
    assert "mean nothing" in words(client.get("/drift"))
    assert "PID-4711" not in text


def test_the_command_says_the_same(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in child_environment(factory.settings).items():
        monkeypatch.setenv(name, value)
    assert boundary.run(app, ["drift"]) == 0
    assert "no scores yet" in capsys.readouterr().out
    read(factory, 0.8)
    assert boundary.run(app, ["drift", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["notice"] == "Research use only, not for clinical use."
    [scores], [quality] = found["scores"], found["quality"]
    assert (scores["month"], scores["breasts"], scores["reference"]) == ("2026-03", 1, True)
    assert scores["malignant"]["p50"] == pytest.approx(0.6)
    assert (quality["images"], quality["slices"]["p50"], quality["senders"]) == (
        2,
        60,
        {"MAMMO1": 2},
    )
    assert boundary.run(app, ["drift"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2026-03", "1", "0", "%", "(0", "to", "79)", "2"] in [line[:8] for line in lines]


MEASURED = Measured(0.085, 1.0, 210.0, 430.0, 655.0)


def test_spacing_and_grey_values_are_shown_where_a_run_measured_them(
    factory: Factory,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read(factory, 0.4)  # as before they were kept
    read(factory, 0.4, measured=MEASURED)
    study_uid = factory.receive(["L-CC", "L-MLO"], study_date="20260401")
    unspaced = replace(MEASURED, pixel_spacing_mm=None, slice_spacing_mm=None, intensity_p50=500.0)
    factory.succeed(factory.close(study_uid), left_out="L-MLO", measured=unspaced)
    text = words(client.get("/drift"))
    spread = "0.085 (0.085 to 0.085) 1.000 (1.000 to 1.000)"
    grey = "210 (210 to 210) 430 (430 to 430) 655 (655 to 655)"
    assert f"2026-03 2 of 4 0 % (0 to 66) {spread} {grey}" in text
    assert "2026-04 1 of 2 100 % (21 to 100) – – 210 (210 to 210) 500 (500 to 500)" in text
    for name, value in child_environment(factory.settings).items():
        monkeypatch.setenv(name, value)
    assert boundary.run(app, ["drift"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"2026-03 2 of 4 0 % (0 to 66) {spread} {grey}" in rows
    assert boundary.run(app, ["drift", "--json"]) == 0
    april, march = json.loads(capsys.readouterr().out)["quality"]
    assert march["measured"]["pixel_spacing_mm"]["p50"] == 0.085
    assert (april["measured"]["images"], april["measured"]["slice_spacing_mm"]) == (1, None)


def test_a_breast_counts_once_a_version_and_replaced_runs_stay(factory: Factory) -> None:
    study_uid, first = read(factory, 0.8)
    factory.arrive(study_uid, "L-CC", study_date="20260301")
    second = factory.close(study_uid)
    assert second != first
    with factory.db.reading() as session:
        assert [round(row.malignant, 3) for row in scored(session)] == [0.6]
        assert scored(session, now(session)) == []
    factory.succeed(second, {"L-CC": 0.2, "L-MLO": 0.2})
    with factory.db.reading() as session:
        assert [round(row.malignant, 3) for row in scored(session)] == [0.2]
    with factory.db.transaction() as session:
        versions.register(session, "next")
        registry.promote(
            session, "next", Signed("ann", None, "for a test", True), Terms.of(factory.settings), now(session)
        )  # fmt: skip
        found = studies.find(session, study_uid)
        reruns.retry(session, found, factory.settings, "next", now(session))
    third = factory.newest_run(study_uid)
    assert third is not None
    factory.succeed(third, {"L-CC": 0.4, "L-MLO": 0.4})
    with factory.db.reading() as session:
        found_now = {row.version: round(row.malignant, 3) for row in scored(session)}
    assert found_now == {"3d-gmic-untrained-seed7": 0.2, "next": 0.4}


def test_metrics_are_what_prometheus_reads(factory: Factory, client: httpx.Client) -> None:
    factory.peer("PACS")
    read(factory, 0.8, measured=MEASURED)
    _, failed = factory.queued()
    factory.fail(failed, "broken")
    factory.queued()
    launch(factory, freeze(factory))
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    samples = {}
    for line in lines:
        if not line.startswith("# "):
            matched = SAMPLE.match(line)
            assert matched, line
            labels = tuple(re.findall(r'"((?:[^"\\]|\\.)*)"', matched[2] or ""))
            assert (matched[1], labels) not in samples
            samples[matched[1], labels] = float(matched[3])
    assert samples["tomonode_studies", ("failed",)] == 1
    assert samples["tomonode_studies", ("delivering",)] == 1
    assert samples["tomonode_runs", ("QUEUED", "false")] == 1
    assert samples["tomonode_runs", ("RUNNING", "true")] == 0
    assert samples["tomonode_deliveries", ("PENDING",)] == 1
    assert samples["tomonode_trainings", ("QUEUED",)] == 1
    for queue in ("inference", "delivery", "training"):
        assert samples["tomonode_queue_depth", (queue,)] == 1
    assert samples["tomonode_disk_free_bytes", ()] > 0
    version = "3d-gmic-untrained-seed7"
    assert samples["tomonode_scored_breasts", (version, "true")] == 1
    assert samples["tomonode_score", (version, "true", "malignant", "0.5")] == pytest.approx(0.6)
    assert samples["tomonode_measured_images", ()] == 2
    assert samples["tomonode_pixel_spacing_mm", ("0.5",)] == 0.085
    assert samples["tomonode_slice_spacing_mm", ("0.95",)] == 1.0
    assert samples["tomonode_intensity", ("0.05", "0.5")] == 210
    assert samples["tomonode_intensity", ("0.95", "0.25")] == 655
    assert "PID-4711" not in answer.text
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert named >= {name for name, _ in samples}


def test_headers_and_other_names(factory: Factory, client: httpx.Client) -> None:
    for path in ("/models", "/datasets", "/trainings", "/drift", "/metrics"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert "style=" not in answer.text
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 400
