"""Other people's files through a real node, by C-STORE and by STOW-RS: each is stored, or refused for one clear reason.

What was stored is read back in every way that the node offers. Files come in batches, each file between good objects.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.errors import RefusalCode
from dicom_io.parse import PARSE_ERRORS
from node.blobs import BlobStore
from node.dicomweb.multipart import Part, content_type, new_boundary, write
from node.models import Instance, Quarantined
from tests.conftest import make_settings
from tests.support.corpus import corpus, name_of
from tests.support.listening import rows
from tests.support.objects import data_set_bytes, write_object
from tests.support.readers import READ, read_every_way
from tests.support.watched import EXPLICIT_LITTLE, Watched, watched
from tests.support.wire import Response, wire

BATCHES = 8
STATUSES = {0x0000, 0x0111, 0xA900, 0xC000}
REFUSED = {404, 406}  # what a client may hear of an object's frames
GROWN = 200 << 20  # bytes of memory that decoding images of this size may leave with the allocator
SMALL = 1 << 20  # bytes of a file of which every frame is decoded here


@dataclass(frozen=True)
class Sample:
    """A file of the corpus: what its data set says of itself, where it says so, and the data set as it is."""

    path: Path
    sop_class: str
    sop_uid: str
    syntax: str
    data: bytes


def sample(path: Path) -> Sample:
    """Read as little as possible; what is missing is made up, as a sender would have to."""
    content = path.read_bytes()
    dataset, meta = Dataset(), Dataset()
    try:
        dataset = dcmread(path, stop_before_pixels=True, force=True)
        meta = dataset.file_meta
    except (*PARSE_ERRORS, OSError):
        pass
    syntax = str(meta.get("TransferSyntaxUID") or _guessed(content))
    return Sample(
        path,
        str(
            dataset.get("SOPClassUID")
            or meta.get("MediaStorageSOPClassUID")
            or "1.2.840.10008.5.1.4.1.1.7"
        ),
        str(dataset.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or "1.2.3.4"),
        syntax,
        data_set_of(content),
    )


def data_set_of(content: bytes) -> bytes:
    """What follows the file meta information, found without its group length: some have none."""
    at = 132 if content[128:132] == b"DICM" else 0
    while content[at : at + 2] == b"\x02\x00":
        long = content[at + 4 : at + 6] in (b"OB", b"UN", b"UT")
        form, start = ("<L", at + 12) if long else ("<H", at + 8)
        at = start + struct.unpack_from(form, content, start - struct.calcsize(form))[0]
    return content[at:]


def _guessed(content: bytes) -> str:
    if content[:2] == b"\x00\x08":
        return "1.2.840.10008.1.2.2"
    return EXPLICIT_LITTLE if content[4:6].isalpha() else "1.2.840.10008.1.2"


def batch(number: int) -> list[Sample]:
    """Every eighth file, so that each batch has something of everything."""
    return [sample(path) for path in corpus()[number::BATCHES]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("corpus")
    with watched(make_settings(home / "var")) as running:
        running.good(home)
        yield running


@pytest.mark.parametrize("number", range(BATCHES))
def test_each_file_is_stored_or_refused_and_read_back(
    node: Watched, tmp_path: Path, number: int
) -> None:
    samples = batch(number)
    assert len(samples) > 5
    first = node.held()
    before = {row.sop_uid for row in rows(node.settings, Instance)}
    answers = by_association(node, samples, tmp_path)
    kept = {row.sop_uid: row for row in rows(node.settings, Instance)}
    for one, answer in answers:
        assert answer.status in STATUSES, (name_of(one.path), answer)
        assert bool(answer.comment) == bool(answer.status), (name_of(one.path), answer)
        if answer.status == 0:
            blob = BlobStore.of(node.settings).path(kept[one.sop_uid].sha256)
            assert data_set_bytes(blob.read_bytes()) == one.data, name_of(one.path)
        elif one.sop_uid not in before and answer.status != 0x0111:
            assert one.sop_uid not in kept or _twin(one, answers), name_of(one.path)
    said = by_web(node, samples, tmp_path)
    agree(answers, said)
    new = [row for uid, row in kept.items() if uid not in before]
    for row in new:
        read_back(node, row, tmp_path)
    node.check(first, GROWN)


def _twin(one: Sample, answers: list[tuple[Sample, Response]]) -> bool:
    return any(o.sop_uid == one.sop_uid and a.status == 0 for o, a in answers)


def good(folder: Path, number: int) -> Sample:
    path = folder / f"good{number}.dcm"
    if not path.exists():
        write_object(path)
    return sample(path)


def by_association(
    node: Watched, samples: list[Sample], folder: Path
) -> list[tuple[Sample, Response]]:
    """Send over one association, each in the syntax of its file and bytes as they are, a good object after each.

    What the node does not negotiate, none can be sent of; it has to say so in its answer to the request.
    """
    neighbour = good(folder, 0)
    pairs = list(dict.fromkeys((one.sop_class, one.syntax) for one in [neighbour, *samples]))
    contexts = {2 * index + 1: (uid, [syntax]) for index, (uid, syntax) in enumerate(pairs)}
    numbers = {(uid, syntaxes[0]): number for number, (uid, syntaxes) in contexts.items()}
    answers = []
    with wire(node.listener.port) as sender:
        accepted = sender.associate(contexts)
        for index, one in enumerate(samples):
            context = numbers[one.sop_class, one.syntax]
            if context in accepted:
                answer = sender.store(context, one.sop_class, one.sop_uid, one.data, index + 1)
                assert answer.message_id == index + 1
                answers.append((one, answer))
            else:
                assert not_served(one), name_of(one.path)
            neighbour = good(folder, index)
            context = numbers[neighbour.sop_class, neighbour.syntax]
            told = sender.store(context, neighbour.sop_class, neighbour.sop_uid, neighbour.data)
            assert told.status == 0, (name_of(one.path), told)
        sender.release()
    return answers


def not_served(one: Sample) -> bool:
    """Classes that are no storage of patients' objects, and syntaxes that nobody can decode any more."""
    return one.sop_class in NO_STORAGE or one.syntax not in KNOWN_SYNTAXES


NO_STORAGE = {
    "1.2.840.10008.1.3.10": "Media Storage Directory",
    "1.2.840.10008.5.1.4.39.1": "Color Palette",
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (Retired)",
}


KNOWN_SYNTAXES = {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.1{tail}" for tail in ("", ".98", ".99")),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70, 80, 81, 90, 91, 201, 202, 203)),
}


def by_web(node: Watched, samples: list[Sample], folder: Path) -> list[int]:
    """Store files in one request, a good object after each: what is said of each file."""
    files = []
    for index, one in enumerate(samples):
        files += [one.path, good(folder, index).path]
    boundary = new_boundary()
    body = write([Part("application/dicom", [path.read_bytes()]) for path in files], boundary)
    kind = content_type(boundary, "application/dicom")
    answer = node.web.post("/dicom-web/studies", headers={"Content-Type": kind}, content=body)
    assert answer.status_code in (200, 202), answer.text
    model = answer.json()
    stored = said_of(model, "00081199")
    failed = said_of(model, "00081198")
    others = model.get("0008119A", {"Value": []})["Value"]
    assert len(stored) + len(failed) + len(others) == len(files)
    neighbours = [good(folder, index).sop_uid for index in range(len(samples))]
    assert set(neighbours) <= {uid for uid, _ in stored}
    assert {reason for _, reason in failed} <= STATUSES - {0} | {0x0122}
    return [reason for uid, reason in stored + failed if uid not in neighbours] + [
        item["00081197"]["Value"][0] for item in others
    ]


def said_of(model: dict[str, Any], tag: str) -> list[tuple[str, int]]:
    items = model.get(tag, {"Value": []})["Value"]
    return [
        (item["00081155"]["Value"][0], item.get("00081197", {"Value": [0]})["Value"][0])
        for item in items
    ]


def agree(answers: list[tuple[Sample, Response]], said: list[int]) -> None:
    """What was kept as it came by an association is the same object for the web: nothing else is kept of it."""
    by_dimse = Counter(answer.status == 0 for _, answer in answers)
    by_stow = Counter(status == 0 for status in said)
    assert by_stow[True] <= by_dimse[True]


def read_back(node: Watched, row: Instance, folder: Path) -> None:
    web, uid = node.web, row.sop_uid
    [found] = web.get("/dicom-web/instances", params={"SOPInstanceUID": uid}).json()
    [address] = found["00081190"]["Value"]
    whole = web.get(address, headers={"Accept": "application/dicom"})
    assert whole.status_code == 200
    path = folder / "read-back.dcm"
    path.write_bytes(whole.content)
    assert whole.content == BlobStore.of(node.settings).path(row.sha256).read_bytes()
    [model] = web.get(f"{address}/metadata").json()
    assert model["00080018"]["Value"] == [uid]
    assert all(len(tag) == 8 and set(value) <= JSON_KEYS for tag, value in model.items())
    assert json.loads(json.dumps(model, allow_nan=False)) == model
    has_pixels = any(tag in model for tag in ("7FE00010", "7FE00008", "7FE00009"))
    small = row.size_bytes < SMALL
    for tail in (
        "/frames/1",
        "/rendered",
        *(("/thumbnail", "/bulkdata/7FE00010") if small else ()),
    ):
        answer = web.get(address + tail, headers={"Accept": "*/*"})
        assert answer.status_code == 200 or answer.status_code in REFUSED, (uid, tail, answer.text)
        assert answer.content if answer.status_code == 200 else answer.json()["message"]
        if answer.status_code == 200:
            assert has_pixels, (uid, tail)
        if tail == "/frames/1":
            frames_are_whole(answer)
    ways = ["volume", "explicit"] if small else ["frames"]  # the others were read by the web
    outcomes = {o.way: o.said for o in read_every_way(path, folder / "scratch.dcm", ways)}
    reasons = tuple(code.sentence for code in RefusalCode)
    assert outcomes.get("volume", READ) == READ or outcomes["volume"].startswith(reasons), outcomes


JSON_KEYS = {"vr", "Value", "InlineBinary", "BulkDataURI"}


def frames_are_whole(answer: Any) -> None:
    """Each part of an answer with frames holds something."""
    kind = answer.headers["content-type"]
    if answer.status_code != 200 or not kind.startswith("multipart/"):
        return
    raw = f"Content-Type: {kind}\r\n\r\n".encode() + answer.content
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    assert all(part.get_payload(decode=True) for part in message.iter_parts())


def test_what_was_refused_was_kept_nowhere(node: Watched) -> None:
    """After everything: rows for blobs, blobs for rows, and quarantine for objects of known UIDs alone."""
    known = {row.sha256 for row in rows(node.settings, Instance)}
    aside = {row.sha256 for row in rows(node.settings, Quarantined)}
    blobs = {p.name for p in node.settings.blob_root.glob("??/??/*") if p.is_file()}
    assert blobs == known | aside
