"""Every way in which the package reads an object, one after the other; for files that nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import dcmread

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError
from dicom_io.frames import open_frames
from dicom_io.header import read_header
from dicom_io.json_model import dumps, to_json
from dicom_io.parse import parse
from dicom_io.rendered import JPEG, render, thumbnail
from dicom_io.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.transcode import transcode
from node.catalogue import described

READ: Final = "read"


@dataclass(frozen=True)
class Outcome:
    """How one way of reading ended: `READ`, or the line that says why not."""

    way: str
    said: str


def read_every_way(path: Path, scratch: Path, ways: Iterable[str] = ()) -> list[Outcome]:
    """Read a file in every way there is, or in these; whatever is not an error of the package's tree passes through.

    `scratch` is a file for what is transcoded; it is not there afterwards.
    """
    outcomes = [_tried(way, WAYS[way], path, scratch) for way in (ways or WAYS)]
    assert not scratch.exists()
    return outcomes


def _tried(way: str, read: Callable[[Path, Path], None], path: Path, scratch: Path) -> Outcome:
    try:
        read(path, scratch)
    except DicomIoError as error:
        line = str(error)
        assert line.strip(), f"{way}: an error that says nothing"
        assert "\n" not in line, f"{way}: an error of several lines: {line!r}"
        return Outcome(way, line)
    return Outcome(way, READ)


def _header(path: Path, _scratch: Path) -> None:
    read_header(path)


def _described(path: Path, _scratch: Path) -> None:
    found = described.read(path)
    json.dumps(found.described.attributes, allow_nan=False).encode()


def _json(path: Path, _scratch: Path) -> None:
    with path.open("rb") as file:
        parsed = parse(file)
    big = parsed.transfer_syntax_uid == EXPLICIT_BIG
    body = dumps(to_json(parsed.dataset, str, pixels=parsed.pixels, big_endian=big))
    assert all(len(tag) == 8 and "vr" in element for tag, element in json.loads(body).items())


def _volume(path: Path, _scratch: Path) -> None:
    image = open_image(path)
    volume_DHW = image.read_volume(1)
    assert volume_DHW.shape == (image.number_of_frames, image.rows, image.columns)


def _frames(path: Path, _scratch: Path) -> None:
    found = open_frames(path)
    for index in {0, found.count // 2, found.count - 1}:
        assert found.read(index)


def _decoded(path: Path, _scratch: Path) -> None:
    found = open_frames(path)
    assert len(found.decoded(found.count - 1)) == -(-found.bits // 8)


def _rendered(path: Path, _scratch: Path) -> None:
    found = open_frames(path)
    assert render(found, found.count - 1)
    assert render(found, 0, JPEG, size=(64, 64))
    assert thumbnail(found)


def _explicit(path: Path, scratch: Path) -> None:
    _transcoded(path, EXPLICIT_LITTLE, scratch)


def _implicit(path: Path, scratch: Path) -> None:
    _transcoded(path, IMPLICIT_LITTLE, scratch)


def _transcoded(path: Path, syntax: str, scratch: Path) -> None:
    try:
        transcode(path, syntax, scratch)
        whole = dcmread(scratch)
        assert whole.file_meta.TransferSyntaxUID == syntax
        assert str(whole.SOPInstanceUID) == read_header(path).sop_instance_uid
    finally:
        scratch.unlink(missing_ok=True)


WAYS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "header": _header,
    "described": _described,
    "json": _json,
    "volume": _volume,
    "frames": _frames,
    "decoded": _decoded,
    "rendered": _rendered,
    "explicit": _explicit,
    "implicit": _implicit,
}
