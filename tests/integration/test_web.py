"""The pages over real HTTP, on rows that the node's own functions made."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import httpx
import pytest

from node import registry, runs, schema, studies
from node.config import Settings
from node.db import Database, now
from node.lifecycle import DeliveryState, RunState
from node.models import Delivery, Run
from node.promotion import Signed
from tests.support.factory import Factory, picture
from tests.support.versions import register
from tests.support.web import served


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    # Times so long that nothing falls due while a test looks.
    names = ("quiet_s", "lease_s", "retry_base_s", "retry_cap_s", "redispatch_s")
    return Factory(db, any_settings.model_copy(update=dict.fromkeys(names, 600.0)))


@pytest.fixture
def client(factory: Factory) -> Iterator[httpx.Client]:
    with served(factory.settings) as opened:
        yield opened


class _Text(HTMLParser):
    """What a person reads: text outside of tags; and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(answer: httpx.Response) -> str:
    return _Text(answer.text).text


def study_row(html: str, study_uid: str) -> str:
    rows = [row for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL) if study_uid in row]
    assert len(rows) == 1
    return _Text(rows[0]).text


def test_an_empty_node_says_what_to_do(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "No study yet." in read(page)
    assert "Nothing was sent yet." in read(client.get("/deliveries"))


def test_work_list_shows_states_and_why_they_wait(factory: Factory, client: httpx.Client) -> None:
    receiving = factory.receive(["R-CC", "L-CC"])
    queued, _ = factory.queued()
    running, run_id = factory.queued()
    factory.claim(run_id, "inference-7")
    failed, run_id = factory.queued()
    factory.fail(run_id, "10 bits stored but a value of 4095; ask the sender")
    later, run_id = factory.queued()
    factory.fail(run_id, "blob store not readable; check the disk", transient=True)
    page = client.get("/").text
    assert "receiving views missing: L-MLO, R-MLO; closes after" in study_row(page, receiving)
    assert "queued next in the queue" in study_row(page, queued)
    assert "running attempt 1 of 3 on inference-7 for" in study_row(page, running)
    row = study_row(page, failed)
    assert "failed 10 bits stored but a value of 4095; ask the sender (attempt 1) Retry" in row
    assert re.search(r"last error: blob store not readable; check the disk", study_row(page, later))
    assert "from MAMMO1" in row


def test_work_list_shows_the_highest_score_of_each_breast(
    factory: Factory, client: httpx.Client
) -> None:
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-CC": 0.311, "L-MLO": 0.876, "R-CC": 0.052, "R-MLO": 0.041})
    row = study_row(client.get("/").text, study_uid)
    assert "R 0.052 L 0.876" in row  # malignant
    assert "done results stay here: no peer was enabled" in row


def test_filters_and_pages(factory: Factory, client: httpx.Client) -> None:
    first, second = factory.receive(["R-CC"], calling_ae="NORTH"), factory.receive(["R-CC"])
    failed, run_id = factory.queued(accession_number="ACC-77")
    factory.fail(run_id, "broken")

    def shown(**params: str | int) -> set[str]:
        page = client.get("/", params=params)
        assert page.status_code == 200
        return {uid for uid in (first, second, failed) if uid in page.text}

    assert shown() == {first, second, failed}
    assert shown(status="receiving") == {first, second}
    assert shown(status="failed") == {failed}
    assert shown(status="delivered") == set()
    assert shown(text="nort") == {first}
    assert shown(text=second[-20:]) == {second}
    assert shown(text="ACC-77") == {failed}
    assert shown(text="%") == set()
    assert shown(limit=1) == {failed}
    assert shown(limit=1, offset=2) == {first}
    assert "2–2 of 3" in read(client.get("/", params={"limit": 1, "offset": 1}))
    assert client.get("/", params={"status": "nonsense"}).status_code == 400
    assert client.get("/", params={"limit": 0}).status_code == 400


def test_study_page_shows_everything(factory: Factory, client: httpx.Client) -> None:
    factory.peer("PACS")
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-MLO": 0.876}, left_out="R-CC")
    (delivery_id,) = factory.deliveries_of(run_id)
    factory.refuse(delivery_id, "2 of 2 objects refused with 0xA700; free some space there")
    page = client.get(f"/studies/{study_uid}")
    text = read(page)
    assert page.status_code == 200
    assert "PID-4711" in text
    assert "ACC-0815" in text
    assert "R CC left out: 4 frames, 45 frame items" in text
    assert "L MLO 0.876 0.392 malignant 0.876 slice 31 (25–34) SEG" in text
    assert "not a probability of malignancy" in text
    assert "Untrained weights" not in text
    assert "PACS at 127.0.0.1:104" in text
    assert "1 of 2 SEG 0x0000 SR 0xA700" in text
    assert "given up after 1 attempt: 2 of 2 objects refused with 0xA700" in text
    for kind in ("received", "complete", "running", "succeeded", "not sent"):
        assert kind in text
    assert "Breast Tomosynthesis Image Storage" in text
    assert "decode 3.2, model 14.8, write 0.9" in text


def test_what_was_read_in_shadow_is_shown_apart(factory: Factory, client: httpx.Client) -> None:
    with factory.db.transaction() as session:
        register(session, "trial-1")
        registry.shadow(session, "trial-1", Signed("ann"), now(session))
    study_uid = factory.receive()
    normal = factory.close(study_uid)
    with factory.db.reading() as session:
        (trial,) = (run.id for run in studies.find(session, study_uid).runs if run.shadow)
    factory.succeed(normal, {"L-MLO": 0.876})
    factory.succeed(trial, {"L-MLO": 0.432})
    text = read(client.get(f"/studies/{study_uid}"))
    head, _, apart = text.partition("In shadow")
    assert "L MLO 0.876" in head
    assert "0.432" not in head
    assert "trial-1" in apart
    assert "L MLO 0.432" in apart
    assert "Earlier runs" not in text
    assert "done" in head


def test_work_list_has_no_patient_attribute(factory: Factory, client: httpx.Client) -> None:
    factory.receive(["R-CC"], patient_id="PID-4711", accession_number="ACC-0815")
    for path in ("/", "/deliveries"):
        page = client.get(path).text
        assert "PID-4711" not in page
        assert "ACC-0815" not in page


def test_untrained_scores_say_that_they_mean_nothing(
    factory: Factory, client: httpx.Client
) -> None:
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-CC": 0.9}, trained=False)
    for path in ("/", f"/studies/{study_uid}"):
        text = read(client.get(path))
        assert "Untrained weights." in text
        assert "mean nothing" in text


def test_a_caveat_of_the_weights_stands_with_the_scores(
    factory: Factory, client: httpx.Client
) -> None:
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-CC": 0.9}, caveat="The weights never saw a patient.")
    for path in ("/", f"/studies/{study_uid}"):
        text = read(client.get(path))
        assert "The weights never saw a patient." in text
        assert "Untrained weights." not in text


def test_a_late_image_keeps_the_earlier_run_in_sight(
    factory: Factory, client: httpx.Client
) -> None:
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-CC": 0.7})
    factory.arrive(study_uid, "L-CC")
    text = read(client.get(f"/studies/{study_uid}"))
    assert "of generation 1; more images are arriving" in text
    assert "scores of generation 1" in study_row(client.get("/").text, study_uid)
    factory.close(study_uid)
    text = read(client.get(f"/studies/{study_uid}"))
    assert "Earlier runs superseded generation 1" in text
    assert f"replaces {run_id}" in text


def test_an_object_kept_aside_is_shown(factory: Factory, client: httpx.Client) -> None:
    study_uid = factory.receive(["R-CC"], sop_uid="1.2.3.4", calling_ae="FIRST")
    factory.arrive(study_uid, "R-CC", sop_uid="1.2.3.4", calling_ae="SECOND")
    text = read(client.get(f"/studies/{study_uid}"))
    assert "1 object with other bytes" in text
    assert "same SOP Instance UID as a stored object, other bytes" in text
    assert "SECOND" in text


def test_retry_queues_a_failed_run_again(factory: Factory, client: httpx.Client) -> None:
    study_uid, run_id = factory.queued()
    factory.fail(run_id, "broken")
    (action,) = set(re.findall(r'action="(/studies/[^"]*/retry)"', client.get("/").text))
    answer = client.post(action, headers={"Referer": f"{client.base_url}/?status=failed"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?status=failed"
    with factory.db.reading() as session:
        assert session.get_one(Run, run_id).state == RunState.QUEUED
    assert "queued by an operator" not in read(client.get("/"))
    assert "queued again by an operator" in read(client.get(f"/studies/{study_uid}"))


def test_run_again_makes_a_new_run(factory: Factory, client: httpx.Client) -> None:
    study_uid, run_id = factory.queued()
    factory.succeed(run_id)
    answer = client.post(f"/studies/{study_uid}/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{study_uid}")
    assert factory.newest_run(study_uid) != run_id


def test_retry_that_does_not_fit_is_refused_on_the_page(
    factory: Factory, client: httpx.Client
) -> None:
    study_uid, run_id = factory.queued()
    answer = client.post(f"/studies/{study_uid}/retry")
    assert answer.status_code == 409
    assert f"run {run_id} is QUEUED; wait for it" in read(answer)
    fresh = factory.receive(["R-CC"])
    answer = client.post(f"/studies/{fresh}/retry")
    assert answer.status_code == 404
    assert f"study {fresh} has no run; it is RECEIVING" in read(answer)
    assert client.get(f"/studies/{fresh}/retry").headers["location"] == f"/studies/{fresh}"


def test_retry_of_a_delivery(factory: Factory, client: httpx.Client) -> None:
    factory.peer("PACS")
    study_uid, run_id = factory.queued()
    factory.succeed(run_id)
    (delivery_id,) = factory.deliveries_of(run_id)
    factory.refuse(delivery_id, "refused; allow it there")
    assert "delivery failed PACS: given up after 1 attempt: refused" in study_row(
        client.get("/").text, study_uid
    )
    page = client.get("/deliveries?state=FAILED").text
    action = f"/deliveries/{delivery_id}/retry"
    assert f'action="{action}"' in page
    answer = client.post(action)
    assert (answer.status_code, answer.headers["location"]) == (303, "/deliveries")
    with factory.db.reading() as session:
        assert session.get_one(Delivery, delivery_id).state == DeliveryState.PENDING
    answer = client.post(action)
    assert answer.status_code == 409
    assert f"delivery {delivery_id} is PENDING, not FAILED" in read(answer)
    answer = client.post(f"/deliveries/{uuid.uuid4()}/retry")
    assert answer.status_code == 404
    assert "no delivery" in read(answer)


def test_delivered_study_and_its_files(factory: Factory, client: httpx.Client) -> None:
    factory.peer("PACS")
    study_uid, run_id = factory.queued()
    factory.succeed(run_id, {"L-CC": 0.8})
    for delivery_id in factory.deliveries_of(run_id):
        factory.send(delivery_id)
    page = client.get(f"/studies/{study_uid}").text
    assert "delivered" in study_row(client.get("/").text, study_uid)
    pictures = [a["src"] for tag, a in _Text(page).tags if tag == "img"]
    assert len(pictures) == 4
    for artifact in factory.artifacts(run_id):
        path = f"/artifacts/{artifact.id}"
        assert path in page
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) == artifact.size_bytes
        if artifact.kind == "OVERLAY":
            assert path in pictures
            assert answer.headers["content-type"] == "image/png"
            assert answer.content == picture(artifact.source_sop_uid or "")
        else:
            assert answer.headers["content-type"] == "application/dicom"
            assert answer.headers["content-disposition"].startswith("attachment")


def test_what_is_not_here(factory: Factory, client: httpx.Client) -> None:
    _, run_id = factory.queued()
    factory.succeed(run_id)
    paths = ["/studies/1.2.3", f"/artifacts/{uuid.uuid4()}", "/artifacts/x", "/nothing"]
    paths += ["/static/../app.py", "/static/%2e%2e/app.py", "/artifacts/..%2f..%2fnode.sqlite"]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "Not here" in read(answer) or answer.headers["content-type"] == "application/json"
        assert "Traceback" not in answer.text
    lost = factory.artifacts(run_id)[0]
    factory.store.path(lost.sha256).unlink()
    answer = client.get(f"/artifacts/{lost.id}")
    assert answer.status_code == 404
    assert "is not in the blob store" in read(answer)


def test_nothing_hostile_is_injected(factory: Factory, client: httpx.Client) -> None:
    hostile = "<script>x</script>"
    study_uid = '"><script>alert(1)</script>/../?a=b#c'
    factory.peer("<b>PEER</b>")
    factory.receive(study_uid=study_uid, calling_ae=hostile[:16], patient_id=hostile)
    run_id = factory.close(study_uid)
    factory.succeed(run_id, {"L-CC": 0.9})
    for delivery_id in factory.deliveries_of(run_id):
        factory.refuse(delivery_id, "`<img src=x onerror=alert(1)>`")
    tags = {tag: a for tag, a in _Text(client.get("/").text).tags if tag == "a" and a.get("href")}
    links = re.findall(r'href="(/studies/[^"]+)"', client.get("/").text)
    assert tags
    assert len(set(links)) == 1
    pages = ["/", links[0], "/deliveries", "/?text=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"]
    for path in pages:
        answer = client.get(path)
        assert answer.status_code == 200
        found = _Text(answer.text)
        scripts = [attributes for tag, attributes in found.tags if tag == "script"]
        assert scripts == [{"src": "/static/refresh.js", "defer": None}]
        assert not [a for tag, a in found.tags if tag == "b" and "PEER" in str(a)]
        assert "<b>PEER" not in answer.text
        assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    assert '"><script>alert(1)</script>' in _Text(client.get(links[0]).text).text
    actions = set(re.findall(r'action="(/studies/[^"]+)"', client.get(links[0]).text))
    assert actions == {f"{links[0]}/labels", f"{links[0]}/retry"}
    label = {"laterality": "L", "birads": "4", "source": hostile, "by": hostile}
    assert client.post(f"{links[0]}/labels", data=label).status_code == 303
    assert hostile not in client.get(links[0]).text
    assert client.post(f"{links[0]}/retry").status_code == 303


def test_headers_of_every_answer(factory: Factory, client: httpx.Client) -> None:
    study_uid = factory.receive(["R-CC"])
    for path in ("/", f"/studies/{study_uid}", "/deliveries", "/nothing", "/static/style.css"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "text/html" in answer.headers["content-type"]:
            assert "Research use only. Not for clinical use." in read(answer)
            assert "style=" not in answer.text  # the policy would not let it work
            outside = [a for _, a in _Text(answer.text).tags if "//" in str(a.get("src"))]
            assert not outside


def test_changes_from_other_pages_are_refused(factory: Factory, client: httpx.Client) -> None:
    study_uid, run_id = factory.queued()
    factory.fail(run_id, "broken")
    path = f"/studies/{study_uid}/retry"
    for origin in ("http://evil.example", "null", "", f"{client.base_url}0", "http://localhost:1"):
        answer = client.post(path, headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "only from a page of this node" in read(answer)
    with factory.db.reading() as session:
        assert session.get_one(Run, run_id).state == RunState.FAILED
    answer = client.get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    answer = client.post(path, headers={"Referer": f"{client.base_url}//evil.example/x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/evil.example/x")


def test_health(factory: Factory, client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["database"] == "ok"
    assert answer.json()["version"]


def test_page_is_the_same_by_uid_and_by_id(factory: Factory, client: httpx.Client) -> None:
    study_uid = factory.receive(["R-CC"])
    with factory.db.reading() as session:
        study_id = studies.find(session, study_uid).id
    assert study_uid in read(client.get(f"/studies/{study_id}"))


def test_database_down_is_said_without_a_stack_trace(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": f"sqlite:///{settings.home}/no/such/dir/x"})
    with served(away) as client:
        for path in ("/", "/studies/1.2.3", "/deliveries"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert "database does not answer" in read(answer)
            assert "Research use only" in read(answer)
            assert "Traceback" not in answer.text
        assert client.post("/studies/1.2.3/retry").status_code == 503
        health = client.get("/healthz")
        assert health.status_code == 503
        assert "database does not answer" in health.json()["database"]


def test_a_database_without_tables_says_how_to_mend_it(any_settings: Settings) -> None:
    with served(any_settings) as client:
        assert client.get("/").status_code == 503
        assert client.get("/healthz").status_code == 503
        schema.upgrade(any_settings.db_url)
        assert client.get("/").status_code == 200


def test_times_are_relative_with_the_exact_one_at_hand(
    factory: Factory, client: httpx.Client
) -> None:
    at = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
    factory.receive(["R-CC"], at=at)
    page = client.get("/").text
    assert 'title="2026-03-01 12:34:56 UTC"' in page
    assert re.search(r">\d+ d ago</time>", page)


def test_a_run_whose_worker_is_lost_says_so(factory: Factory, client: httpx.Client) -> None:
    study_uid, run_id = factory.queued()
    short = factory.settings.model_copy(update={"lease_s": 0.001})
    assert runs.claim(factory.db, run_id, "inference-9", short)
    row = study_row(client.get("/").text, study_uid)
    assert "worker inference-9 stopped answering; the relay queues the run again" in row
