"""The form on the study page and the JSON under /api/labels, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import pytest

from node import studies
from node.config import Settings
from node.db import Database
from node.labels import store
from tests.support.factory import Factory
from tests.support.objects import write_object
from tests.support.web import served

FORM = {
    "laterality": "L",
    "finding": "malignant",
    "found_on": "2026-03-20",
    "birads": "4",
    "by": "anna",
}
PATHOLOGY = {
    "laterality": "R", "benign": True, "malignant": False, "found_on": "2026-03-20", "source": "ris", "by": "ben",
}  # fmt: skip


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    return Factory(db, any_settings.model_copy(update={"quiet_s": 600.0}))


@pytest.fixture
def client(factory: Factory) -> Iterator[httpx.Client]:
    with served(factory.settings) as opened:
        yield opened


def words(answer: httpx.Response) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text).split())


def newest(factory: Factory, study_uid: str, side: str = "L") -> tuple[str, date, str] | None:
    with factory.db.reading() as session:
        row = store.newest_pathology(session).get((studies.find(session, study_uid).id, side))
        return None if row is None else (store.finding(row).word, row.found_on, row.author)


def test_the_form_writes_and_the_page_shows_every_revision(
    factory: Factory, client: httpx.Client
) -> None:
    uid = factory.receive()
    assert "L unknown no pathology yet" in words(client.get(f"/studies/{uid}"))
    answer = client.post(f"/studies/{uid}/labels", data=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{uid}#labels")
    assert newest(factory, uid) == ("malignant", date(2026, 3, 20), "anna")
    client.post(f"/studies/{uid}/labels", data={**FORM, "finding": "both", "note": "<b>again</b>"})
    page = client.get(f"/studies/{uid}")
    text = words(page)
    assert "L both pathology, revision 2" in text
    assert "both, found 2026-03-20 revision 2, study page, anna" in text
    assert "malignant, found 2026-03-20 revision 1" in text
    assert "&lt;b&gt;again&lt;/b&gt;" in page.text
    assert "4 revision 1" in text
    assert "L: pathology both (revision 2)" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"found_on": "2026-02-30"}, "which is no day"),
        ({"found_on": ""}, "found_on is empty"),
        ({"laterality": ""}, "laterality is empty"),
        ({"finding": "", "birads": ""}, "nothing was chosen"),
        ({"by": ""}, "author has 0 characters"),
        ({"birads": "9"}, "BI-RADS category is"),
        ({"note": "a\0b"}, "note has 3 characters"),
    ],
)
def test_a_refused_form_says_why_and_keeps_what_was_written(
    factory: Factory, client: httpx.Client, changed: dict[str, str], said: str
) -> None:
    uid = factory.receive()
    answer = client.post(f"/studies/{uid}/labels", data={**FORM, "source": "report 17", **changed})
    assert answer.status_code == 400
    assert said in words(answer)
    assert 'value="report 17"' in answer.text
    assert '<details class="again" id="label" open>' in answer.text
    assert "refresh.js" not in answer.text  # the page stands still while somebody writes
    assert newest(factory, uid) is None
    again = client.get(f"/studies/{uid}/labels")  # a reload
    assert again.status_code == 200
    assert "refresh.js" not in again.text


def test_a_stranger_writes_nothing(factory: Factory, client: httpx.Client) -> None:
    uid = factory.receive()
    stranger = {"Origin": "http://elsewhere.example"}
    assert client.post(f"/studies/{uid}/labels", data=FORM, headers=stranger).status_code == 403
    address = f"/api/labels/studies/{uid}/pathology"
    assert client.post(address, json=PATHOLOGY, headers=stranger).status_code == 403
    assert newest(factory, uid) is None


def test_labels_by_rest(factory: Factory, client: httpx.Client) -> None:
    uid = factory.receive()
    address = f"/api/labels/studies/{uid}"
    first = client.post(f"{address}/pathology", json=PATHOLOGY)
    assert (first.status_code, first.json()) == (201, {"written": True, "revision": 1})
    same = client.post(f"{address}/pathology", json=PATHOLOGY)
    assert (same.status_code, same.json()) == (200, {"written": False, "revision": None})
    said = {"laterality": "R", "category": 3, "source": "ris", "by": "ben"}
    assert client.post(f"{address}/assessments", json=said).status_code == 201
    right, left = client.get(address, params={"window_days": 30000}).json()["breasts"]
    assert (right["counts_as"], left["counts_as"]) == ("benign", "unknown")
    [row] = client.get("/api/labels").json()
    assert (row["study_uid"], row["finding"], row["category"]) == (uid, "benign", 3)
    assert "PID-4711" not in client.get(address).text


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"found_on": "2026-02-30"}, 400), ({"laterality": "B"}, 400), ({"source": ""}, 400), ({"by": None}, 400)],
)  # fmt: skip
def test_rest_refuses_in_json(
    factory: Factory, client: httpx.Client, changed: dict[str, object], status: int
) -> None:
    uid = factory.receive()
    answer = client.post(f"/api/labels/studies/{uid}/pathology", json={**PATHOLOGY, **changed})
    assert (answer.status_code, set(answer.json())) == (status, {"error", "message"})
    assert client.get("/api/labels/studies/9.9").json()["error"] == "Not here"
    assert newest(factory, uid, "R") is None


def test_a_file_by_rest(factory: Factory, client: httpx.Client) -> None:
    uid = factory.receive()
    content = f"study_uid\tlaterality\tbirads\n{uid}\tR\t2\n{uid}\tL\t9\n".encode("utf-16")
    asked = {"by": "anna", "source": "ris.txt"}

    def post(**more: object) -> httpx.Response:
        return client.post("/api/labels/imports", params={**asked, **more}, content=content)

    dry = post(dry_run=True).json()
    assert (dry["encoding"], dry["delimiter"]) == ("UTF-16 (little-endian)", "tab")
    assert [row["outcome"] for row in dry["rows"]] == ["matched", "invalid"]
    assert client.get("/api/labels").json() == []
    assert post().json()["counts"]["matched"] == 1
    assert post().json()["counts"]["unchanged"] == 1
    assert len(client.get("/api/labels/imports").json()) == 1
    refused = client.post("/api/labels/imports", params=asked, content=b"a,b\n")
    assert (refused.status_code, refused.json()["error"]) == (400, "Not understood")


def test_boxes_by_rest_lie_within_the_stored_image(
    factory: Factory, client: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "one.dcm"
    written = write_object(path, NumberOfFrames=2)
    stored = factory.store.write(path.read_bytes())
    factory.receive(["L-CC"], sop_uid=written.SOPInstanceUID, sha256=stored, frames=2)
    address = f"/api/labels/images/{written.SOPInstanceUID}/boxes"
    box = {
        "label": "benign", "frame": 1, "row": 0, "col": 0, "height": 16, "width": 16, "source": "s", "by": "anna",
    }  # fmt: skip
    assert client.post(address, json=box).json() == {"written": True, "revision": 1, "number": 1}
    assert client.post(address, json={**box, "number": 1}).json()["written"] is False
    for changed in ({"height": 17}, {"frame": 2}, {"row": -1}, {"number": 7}):
        assert client.post(address, json={**box, **changed}).status_code in (400, 404)
    gone = client.post(f"{address}/1/withdraw", json={"source": "s", "by": "anna"})
    assert (gone.status_code, gone.json()["revision"]) == (201, 2)
