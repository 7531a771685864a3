"""QIDO-RS and WADO-RS of a running node: against the files that were stored, and with a foreign client."""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from dicom_io.frames import open_frames
from dicom_io.phantom import PhantomView, write_study
from node import schema
from node.arrivals import Recorded
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.dicomweb.multipart import Part, content_type, new_boundary, write
from node.exchange_models import CatalogueRow
from node.ingest import ingest
from node.models import Activity
from node.spool import Command, SpoolFile
from node.web.app import create_app
from tests.conftest import make_settings
from tests.support.breast_objects import edited, encode, volume, with_frames
from tests.support.objects import data_set_bytes, write_object
from tests.support.services import wait_until
from tests.support.web import served
from tests.unit.dicom_io.test_frames import image

J2K, LITTLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"
JSON = "application/dicom+json"


def keep(settings: Settings, path: Path) -> Recorded:
    """Store a file in a node as its listener does."""
    meta = dcmread(path, stop_before_pixels=True)
    command = Command(meta.SOPClassUID, meta.SOPInstanceUID, meta.file_meta.TransferSyntaxUID)
    store, db = BlobStore.of(settings), Database(settings.db_url)
    file = SpoolFile.create(store, 0, command)
    try:
        file.write(data_set_bytes(path.read_bytes()))
        return ingest(file, store, db, "TEST")[0]
    finally:
        file.discard()
        db.dispose()


@dataclass(frozen=True)
class Held:
    """A node that serves two views of a breast (one native, one JPEG 2000) and a mask of another study."""

    web: httpx.Client
    settings: Settings
    native: Dataset
    compressed: Dataset
    compressed_path: Path
    mask: Path

    @property
    def study(self) -> str:
        return f"/dicom-web/studies/{self.native.StudyInstanceUID}"

    def at(self, dataset: Dataset) -> str:
        series = f"/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
        return self.study + series

    def get(self, path: str, accept: str = "", **query: Any) -> httpx.Response:
        headers = {"Accept": accept} if accept else {"Accept": "*/*"}
        return self.web.get(path, headers=headers, params=query or None)

    def found(self, path: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.get(path, JSON, **query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == JSON
        return list(answer.json())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    home = tmp_path_factory.mktemp("node")
    settings = make_settings(home / "var")
    schema.upgrade(settings.db_url)
    views = [
        PhantomView("L", "CC", volume("L"), (0.1, 0.1)),
        PhantomView("R", "MLO", volume("R"), (0.1, 0.1)),
    ]
    native, compressed = write_study(home / "study", views, seed=1).files
    for path in (native, compressed):
        edited(path, lambda dataset: setattr(dataset, "PatientName", "Müller^Änne"))
        edited(path, lambda dataset: setattr(dataset, "SpecificCharacterSet", "ISO_IR 100"))
    with_frames(compressed, [encode(frame, J2K) for frame in volume("R")], J2K)
    masks = np.random.default_rng(1).random((4, 5, 7)) < 0.4
    packed = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    mask = image(
        home / "mask.dcm", packed, NumberOfFrames=4, Rows=5, Columns=7, BitsAllocated=1,
        StudyInstanceUID="1.2.4",
    )  # fmt: skip
    for path in (native, compressed, mask):
        assert keep(settings, path) is Recorded.NEW
    with served(settings) as web:
        del web.headers["Origin"]  # programs name none
        yield Held(web, settings, dcmread(native), dcmread(compressed), compressed, mask)


def parts(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """(Content-Type, content) of a multipart answer, read by Python's own reader of mail."""
    assert answer.status_code == 200, answer.text
    raw = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    assert not message.defects
    return [
        (part["Content-Type"].replace('"', ""), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]


# --- QIDO-RS ---


def test_studies_are_found_by_what_their_objects_say(node: Held) -> None:
    uid = node.native.StudyInstanceUID
    for query in (
        {"StudyInstanceUID": uid},
        {"0020000D": uid},
        {"PatientName": "MULLER*"},
        {"PatientID": node.native.PatientID},
        {"ModalitiesInStudy": "MG"},
        {"StudyDate": f"{node.native.StudyDate}-", "limit": "10", "includefield": "all"},
    ):
        found = node.found("/dicom-web/studies", **query)
        assert [one["0020000D"]["Value"] for one in found] == [[uid]], query
    (one,) = found
    assert one["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Änne"}]}
    assert one["00201206"] == {"vr": "IS", "Value": [2]}
    assert one["00201208"] == {"vr": "IS", "Value": [2]}
    assert one["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert one["00081190"]["Value"] == [str(node.web.base_url).rstrip("/") + node.study]
    assert list(one) == sorted(one)


def test_series_and_instances_of_a_study_and_of_all(node: Held) -> None:
    assert len(node.found(node.study + "/series")) == 2
    assert len(node.found("/dicom-web/series")) == 3
    (one,) = node.found(node.study + "/instances", Laterality="R")
    assert one["00080018"]["Value"] == [node.compressed.SOPInstanceUID]
    assert one["00083002"]["Value"] == [J2K]
    assert one["00280008"] == {"vr": "IS", "Value": [5]}
    series = f"{node.study}/series/{node.native.SeriesInstanceUID}/instances"
    assert [i["00080018"]["Value"][0] for i in node.found(series)] == [node.native.SOPInstanceUID]
    assert len(node.found("/dicom-web/instances")) == 3


def test_pages_and_what_is_not_there(node: Held) -> None:
    answer = node.get("/dicom-web/instances", JSON, limit="2")
    assert len(answer.json()) == 2
    assert "additional results" in answer.headers["warning"]
    rest = node.get("/dicom-web/instances", JSON, limit="2", offset="2")
    assert len(rest.json()) == 1
    assert "warning" not in rest.headers
    assert node.found("/dicom-web/studies", PatientID="nobody") == []
    ignored = node.get("/dicom-web/studies", JSON, RequestedProcedureID="x", fuzzymatching="true")
    assert len(ignored.json()) == 2
    assert len(ignored.headers.get_list("warning")) == 2


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "-1"},
        {"offset": "x"},
        {"nonsense": "1"},
        {"StudyDate": "yesterday"},
        {"StudyInstanceUID": "1.2.*"},
    ],
)
def test_searches_that_are_none(node: Held, query: dict[str, str]) -> None:
    answer = node.get("/dicom-web/studies", JSON, **query)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Not understood"


# --- WADO-RS ---


def test_whole_objects_come_as_they_are_stored(node: Held) -> None:
    got = parts(node.get(node.study, 'multipart/related; type="application/dicom"'))
    assert {kind for kind, _ in got} == {
        f"application/dicom; transfer-syntax={syntax}" for syntax in (J2K, LITTLE)
    }
    for _, content in got:
        dataset = dcmread(BytesIO(content))
        sent = {d.SOPInstanceUID: d for d in (node.native, node.compressed)}[dataset.SOPInstanceUID]
        assert dataset.PixelData == sent.PixelData
    series = f"{node.study}/series/{node.native.SeriesInstanceUID}"
    assert len(parts(node.get(series, "multipart/related; transfer-syntax=*"))) == 1
    alone = node.get(node.at(node.native), "application/dicom")
    assert dcmread(BytesIO(alone.content)).SOPInstanceUID == node.native.SOPInstanceUID


def test_a_syntax_that_is_not_stored_is_not_acceptable(node: Held) -> None:
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={LITTLE}'
    assert node.get(node.at(node.native), accept).status_code == 200
    answer = node.get(node.at(node.compressed), accept)
    assert answer.status_code == 406
    assert "multipart/related" in answer.json()["message"]
    assert node.get(node.at(node.native), "application/zip").status_code == 406
    assert node.get(node.at(node.native), "no accept header").status_code == 400


def test_metadata_is_the_data_set_without_pixels(node: Held) -> None:
    (one,) = node.found(node.at(node.native) + "/metadata")
    assert one["00100010"]["Value"] == [{"Alphabetic": "Müller^Änne"}]
    assert one["00080005"]["Value"] == ["ISO_IR 192"]
    assert len(one["52009230"]["Value"]) == 5
    assert one["00080018"]["Value"] == [node.native.SOPInstanceUID]
    uri = one["7FE00010"]["BulkDataURI"]
    ((kind, content),) = parts(node.get(uri))
    assert kind == "application/octet-stream"
    assert content == node.native.PixelData
    assert len(node.found(node.study + "/metadata")) == 2


def test_bulk_data_of_compressed_pixels_is_its_frames(node: Held) -> None:
    got = parts(node.get(node.at(node.compressed) + "/bulkdata/7FE00010"))
    frames = open_frames(node.compressed_path)
    assert [content for _, content in got] == [frames.read(index) for index in range(5)]
    assert got[0][0] == f"image/jp2; transfer-syntax={J2K}"


def test_frames_as_stored_and_uncompressed(node: Held) -> None:
    address = node.at(node.compressed) + "/frames/"
    frames = open_frames(node.compressed_path)
    viewer = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    got = parts(node.get(address + "1,3", viewer))
    assert got == [(f"image/jp2; transfer-syntax={J2K}", frames.read(n)) for n in (0, 2)]
    plain = parts(node.get(address + "2", 'multipart/related; type="application/octet-stream"'))
    assert plain == [
        (
            f"application/octet-stream; transfer-syntax={LITTLE}",
            volume("R")[1].astype("<u2").tobytes(),
        )
    ]
    alone = node.get(address + "5", "image/jp2")
    assert alone.content == frames.read(4)
    assert alone.headers["content-type"] == f"image/jp2; transfer-syntax={J2K}"


def test_frames_of_a_mask_begin_on_a_byte(node: Held) -> None:
    masks = dcmread(node.mask).pixel_array
    address = "/dicom-web/studies/1.2.4/series/1.2.5/instances/1.2.3/frames/"
    for index, mask in enumerate(masks):
        ((_, content),) = parts(node.get(f"{address}{index + 1}"))
        assert content == np.packbits(mask.reshape(-1), bitorder="little").tobytes()


@pytest.mark.parametrize(("numbers", "status"), [("0", 404), ("6", 404), ("1,x", 400), ("-1", 400)])
def test_frames_that_are_not_there(node: Held, numbers: str, status: int) -> None:
    assert node.get(f"{node.at(node.native)}/frames/{numbers}").status_code == status


def test_pictures(node: Held) -> None:
    address = node.at(node.compressed)
    picture = node.get(address + "/frames/2/rendered", "image/png", window="500,200,linear-exact")
    levels = np.asarray(Image.open(BytesIO(picture.content))).astype(float)
    expected = np.clip((volume("R")[1].astype(float) - 500) / 200 + 0.5, 0, 1) * 255
    assert np.abs(levels - expected).max() <= 1
    default = node.get(address + "/rendered", viewport="20,20")
    assert default.headers["content-type"] == "image/jpeg"
    assert max(Image.open(BytesIO(default.content)).size) == 20
    small = node.get(address + "/thumbnail")
    assert Image.open(BytesIO(small.content)).format == "JPEG"
    for query in ({"window": "1"}, {"window": "1,0"}, {"viewport": "0,1"}, {"quality": "x"}):
        assert node.get(address + "/rendered", **query).status_code == 400, query


def test_what_a_client_has_is_not_sent_again(node: Held) -> None:
    address = node.at(node.native) + "/frames/1"
    first = node.get(address, "multipart/related")
    tag = first.headers["etag"]
    again = node.web.get(address, headers={"Accept": "multipart/related", "If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    other = node.web.get(
        address, headers={"Accept": "application/octet-stream", "If-None-Match": tag}
    )
    assert other.status_code == 200
    assert other.headers["etag"] != tag


def test_what_is_not_here(node: Held) -> None:
    for path in (
        "/dicom-web/studies/1.2.3.4.5",
        "/dicom-web/studies/1.2.3.4.5/metadata",
        f"{node.study}/series/1.2.3",
        f"{node.study}/series/{node.native.SeriesInstanceUID}/instances/1.2.3/frames/1",
        f"{node.at(node.native)}/bulkdata/00091010",
        f"{node.at(node.native)}/bulkdata/../../x",
        "/dicom-web/nothing",
    ):
        answer = node.get(path)
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"error", "message"}


def test_an_object_without_pixels(node: Held, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    made = write_object(path, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.34", StudyInstanceUID="1.2.9")

    def edit(dataset: Dataset) -> None:
        del dataset.PixelData

    edited(path, edit)
    assert keep(node.settings, path) is Recorded.NEW
    address = (
        f"/dicom-web/studies/1.2.9/series/{made.SeriesInstanceUID}/instances/{made.SOPInstanceUID}"
    )
    assert node.get(address + "/frames/1").status_code == 404
    assert node.get(address + "/rendered").status_code == 404
    assert len(node.found(address + "/metadata")) == 1


def test_frames_that_no_decoder_likes_can_still_be_fetched(node: Held, tmp_path: Path) -> None:
    made = write_object(tmp_path / "odd.dcm", J2K, StudyInstanceUID="1.2.10")
    assert keep(node.settings, tmp_path / "odd.dcm") is Recorded.NEW
    address = (
        f"/dicom-web/studies/1.2.10/series/{made.SeriesInstanceUID}/instances/{made.SOPInstanceUID}"
    )
    ((_, content),) = parts(node.get(address + "/frames/1", "multipart/related; type=image/jp2"))
    assert content == bytes(range(256)) * 2
    for path in ("/frames/1/rendered", "/thumbnail"):
        assert node.get(address + path).status_code == 406
    octets = 'multipart/related; type="application/octet-stream"'
    assert node.get(address + "/frames/1", octets).status_code == 406


def test_only_what_the_catalogue_lists_is_given(node: Held, tmp_path: Path) -> None:
    first = write_object(tmp_path / "a.dcm", StudyInstanceUID="1.2.11")
    write_object(
        tmp_path / "b.dcm", StudyInstanceUID="1.2.11", SOPInstanceUID=first.SOPInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID, SeriesDescription="another",
    )  # fmt: skip
    assert keep(node.settings, tmp_path / "a.dcm") is Recorded.NEW
    assert keep(node.settings, tmp_path / "b.dcm") is Recorded.CONFLICT
    ((_, content),) = parts(node.get("/dicom-web/studies/1.2.11"))
    assert "SeriesDescription" not in dcmread(BytesIO(content))


def test_a_blob_that_is_gone_is_said(node: Held, tmp_path: Path) -> None:
    made = write_object(tmp_path / "a.dcm", StudyInstanceUID="1.2.12")
    assert keep(node.settings, tmp_path / "a.dcm") is Recorded.NEW
    db = Database(node.settings.db_url)
    with db.transaction() as session:
        lost = update(CatalogueRow).where(CatalogueRow.sop_uid == made.SOPInstanceUID)
        session.execute(lost.values(sha256="0" * 64))
    db.dispose()
    answer = node.get("/dicom-web/studies/1.2.12")
    assert answer.status_code == 404
    assert "blob store" in answer.json()["message"]


# --- STOW-RS ---


def stow(node: Held, files: list[Path], where: str = "/dicom-web/studies") -> httpx.Response:
    """Store files as a program does."""
    boundary = new_boundary()
    kind = content_type(boundary, "application/dicom")
    body = write([Part("application/dicom", [path.read_bytes()]) for path in files], boundary)
    return node.web.post(where, headers={"Content-Type": kind}, content=body)


def reasons(answer: httpx.Response, tag: str = "00081198") -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json()[tag]["Value"]]


def spooled(node: Held) -> list[Path]:
    return list(node.settings.spool.iterdir())


def test_what_is_stored_is_kept_and_the_same_bytes_by_either_way(
    node: Held, tmp_path: Path
) -> None:
    files = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    made = [write_object(path, StudyInstanceUID="1.2.20") for path in files]
    answer = stow(node, files)
    assert answer.status_code == 200
    stored = [item["00081155"]["Value"][0] for item in answer.json()["00081199"]["Value"]]
    assert stored == [one.SOPInstanceUID for one in made]
    assert answer.json()["00081190"]["Value"][0].endswith("/dicom-web/studies/1.2.20")
    assert len(node.found("/dicom-web/studies/1.2.20/instances")) == 2
    assert keep(node.settings, files[0]) is Recorded.DUPLICATE
    assert stow(node, files).status_code == 200
    assert spooled(node) == []


def test_one_bad_part_costs_no_other(node: Held, tmp_path: Path) -> None:
    good, cut, bare, strange, small = (tmp_path / f"{name}.dcm" for name in "abcde")
    write_object(good, StudyInstanceUID="1.2.21")
    write_object(cut, StudyInstanceUID="1.2.21")
    cut.write_bytes(cut.read_bytes()[:-100])
    bare.write_bytes(bytes(range(256)) * 4)
    write_object(strange, StudyInstanceUID="1.2.21", SOPClassUID="1.2.840.10008.1.1")
    small.write_bytes(b"x")
    answer = stow(node, [bare, cut, good, strange, small])
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert reasons(answer) == [0xC000, 0x0122]
    assert reasons(answer, "0008119A") == [0xC000, 0xC000]
    assert len(node.found("/dicom-web/studies/1.2.21/instances")) == 1
    assert stow(node, [cut]).status_code == 409
    assert spooled(node) == []


def test_other_bytes_under_a_uid_are_a_failure(node: Held, tmp_path: Path) -> None:
    first = write_object(tmp_path / "a.dcm", StudyInstanceUID="1.2.22")
    write_object(tmp_path / "b.dcm", StudyInstanceUID="1.2.22", SOPInstanceUID=first.SOPInstanceUID)
    answer = stow(node, [tmp_path / "a.dcm", tmp_path / "b.dcm"])
    assert (answer.status_code, reasons(answer)) == (202, [0x0111])


def test_objects_of_another_study_are_refused(node: Held, tmp_path: Path) -> None:
    write_object(tmp_path / "a.dcm", StudyInstanceUID="1.2.23")
    answer = stow(node, [tmp_path / "a.dcm"], "/dicom-web/studies/1.2.99")
    assert (answer.status_code, reasons(answer)) == (409, [0xA900])
    assert stow(node, [tmp_path / "a.dcm"], "/dicom-web/studies/1.2.23").status_code == 200


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/dicom", b"x", 415),
        ("multipart/form-data; boundary=b", b"--b--", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', b"--b--", 415),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b--", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b\r\n\r\ncut", 400),
        ("multipart/related; boundary=b", b"--b\r\nA: " + b"x" * 20_000, 413),
    ],
)
def test_bodies_that_are_none(node: Held, kind: str, body: bytes, status: int) -> None:
    answer = node.web.post("/dicom-web/studies", headers={"Content-Type": kind}, content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "message"}


def test_a_request_that_breaks_off_leaves_the_whole_ones_alone(node: Held, tmp_path: Path) -> None:
    for name in "ab":
        write_object(tmp_path / name, StudyInstanceUID="1.2.24")
    body = b"".join(
        write([Part("application/dicom", [(tmp_path / n).read_bytes()]) for n in "ab"], "b")
    )
    url = node.web.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n"
        head += 'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n'
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-200])
        wait_until(lambda: spooled(node) != [], 20, "the second object to be on its way")
    wait_until(lambda: spooled(node) == [], 20, "the broken object to be removed")
    assert len(node.found("/dicom-web/studies/1.2.24/instances")) == 1


def test_a_study_is_open_while_its_object_is_on_its_way(node: Held, tmp_path: Path) -> None:
    write_object(tmp_path / "a", StudyInstanceUID="1.2.25", PixelData=bytes(4_000_000))
    body = b"".join(write([Part("application/dicom", [(tmp_path / "a").read_bytes()])], "b"))
    db = Database(node.settings.db_url)

    def in_flight() -> list[bool]:
        wanted = select(Activity.in_flight).where(Activity.study_uid == "1.2.25")
        with db.reading() as session:
            return list(session.execute(wanted).scalars())

    def slowly() -> Iterator[bytes]:
        yield body[:-1000]
        wait_until(lambda: in_flight() == [True], 20, "the study to be open")
        yield body[-1000:]

    kind = 'multipart/related; type="application/dicom"; boundary=b'
    answer = node.web.post("/dicom-web/studies", headers={"Content-Type": kind}, content=slowly())
    assert answer.status_code == 200
    assert in_flight() == []
    db.dispose()


# --- what the guard says ---


def test_strangers_store_and_read_nothing(node: Held) -> None:
    for origin in ("https://elsewhere.example", "null", ""):
        answer = node.web.post("/dicom-web/studies", headers={"Origin": origin}, content=b"x")
        assert answer.status_code == 403
    assert node.web.post("/studies/1.2.3/retry").status_code == 403  # a page of ours alone
    answer = node.web.get("/dicom-web/studies", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    answer = node.web.get("/dicom-web/studies", headers={"Host": "elsewhere.example"})
    assert answer.status_code == 400


def test_an_open_node_gives_objects_to_allowed_addresses_alone(node: Held) -> None:
    settings = node.settings.model_copy(
        update={"web_host": "192.0.2.1", "allowed_addresses": frozenset({"10.1.0.0/16"})}
    )
    app = create_app(settings)

    async def ask(address: str, path: str) -> int:
        transport = httpx.ASGITransport(app=app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(ask("10.1.2.3", "/dicom-web/studies")) == 200
    assert asyncio.run(ask("127.0.0.1", "/dicom-web/studies")) == 200
    assert asyncio.run(ask("10.2.2.3", "/dicom-web/studies")) == 403
    assert asyncio.run(ask("10.2.2.3", "/static/style.css")) == 200


# --- the viewer ---


def viewer_folder(settings: Settings) -> Path:
    """A folder with what a viewer's package has: a page with a script in it, code, a service worker."""
    folder = settings.home / "viewer"
    (folder / "assets").mkdir(parents=True)
    page = '<html><script>console.time("x")</script><script src="/a.js"></script></html>'
    (folder / "index.html").write_text(page)
    (folder / "app.bundle.0f6159c501addfe9.js").write_text("1")
    (folder / "0ddf166f7a343eda.wasm").write_bytes(b"\0asm")
    (folder / "assets" / "x.svg").write_text("<svg/>")
    for name in ("sw.js", "init-service-worker.js", "app-config.js", "notes.txt"):
        (folder / name).write_text("not to be served")
    return folder


def test_the_viewer_is_served_where_it_is_installed(settings: Settings) -> None:
    schema.upgrade(settings.db_url)
    viewer_folder(settings)
    with served(settings) as web:
        page = web.get("/viewer", params={"StudyInstanceUIDs": "1.2.3"})
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        rules = page.headers["content-security-policy"]
        digest = base64.b64encode(hashlib.sha256(b'console.time("x")').digest()).decode()
        assert f"script-src 'self' 'unsafe-eval' blob: 'sha256-{digest}';" in rules
        code = web.get("/app.bundle.0f6159c501addfe9.js")
        assert code.headers["content-type"].startswith("text/javascript")
        assert code.headers["content-security-policy"] == rules  # of a worker made from it
        assert "immutable" in code.headers["cache-control"]
        assert web.get("/0ddf166f7a343eda.wasm").headers["content-type"] == "application/wasm"
        assert web.get("/assets/x.svg").status_code == 200
        config = web.get("/app-config.js")
        assert '"wadoRoot": "/dicom-web"' in config.text
        assert '"loadMultiframeAsPart10": false' in config.text  # it would be drawn as stripes
        assert "not for clinical use" in config.text
        for path in ("/sw.js", "/init-service-worker.js", "/notes.txt", "/assets/../notes.txt"):
            assert web.get(path).status_code == 404, path
        ours = web.get("/")
        assert "unsafe" not in ours.headers["content-security-policy"]
        assert "Work list" in ours.text


def test_a_study_links_to_the_viewer_once_it_is_installed(settings: Settings) -> None:
    schema.upgrade(settings.db_url)
    write_object(settings.home / "a.dcm", StudyInstanceUID="1.2.3")
    assert keep(settings, settings.home / "a.dcm") is Recorded.NEW
    with served(settings) as web:
        assert "make viewer" in web.get("/studies/1.2.3").text
        assert web.get("/viewer").status_code == 404
    viewer_folder(settings)
    with served(settings) as web:
        assert 'href="/viewer?StudyInstanceUIDs=1.2.3"' in web.get("/studies/1.2.3").text


# --- a foreign client ---


def test_the_dicomweb_client_reads_it(node: Held) -> None:
    api = pytest.importorskip("dicomweb_client.api", reason="pip install dicomweb-client")
    client = api.DICOMwebClient(f"{str(node.web.base_url).rstrip('/')}/dicom-web")
    uids = (
        node.compressed.StudyInstanceUID,
        node.compressed.SeriesInstanceUID,
        node.compressed.SOPInstanceUID,
    )
    (study,) = client.search_for_studies(search_filters={"StudyInstanceUID": uids[0]})
    assert study["0020000D"]["Value"] == [uids[0]]
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert len(client.search_for_series(uids[0])) == 2
    assert len(client.search_for_instances(uids[0])) == 2
    (metadata,) = [
        Dataset.from_json(json.dumps(m)) for m in client.retrieve_series_metadata(*uids[:2])
    ]
    assert metadata.NumberOfFrames == 5
    again = client.store_instances([node.native])
    assert len(again.ReferencedSOPSequence) == 1
    whole = client.retrieve_instance(*uids)
    assert whole.PixelData == node.compressed.PixelData
    assert {d.SOPInstanceUID for d in client.retrieve_study(uids[0])} == {
        node.native.SOPInstanceUID,
        uids[2],
    }
    stored = client.retrieve_instance_frames(*uids, [1, 2], media_types=(("image/jp2", J2K),))
    assert stored == [open_frames(node.compressed_path).read(n) for n in (0, 1)]
    plain = client.retrieve_instance_frames(*uids, [4], media_types=("application/octet-stream",))
    assert plain == [volume("R")[3].astype("<u2").tobytes()]
    picture = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert Image.open(BytesIO(picture)).size == (40, 60)
