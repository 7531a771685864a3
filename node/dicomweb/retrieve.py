"""WADO-RS (PS3.18 10.4): what an object is given as, read from its blob piece by piece.

Nothing is transcoded but single frames: a whole object comes in the syntax in which it is stored, whatever size it has,
and no answer is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frames import OCTETS, Frames, open_frames
from dicom_io.json_model import bulk_value, dumps, to_json
from dicom_io.parse import ParsedDataset, parse
from dicom_io.rendered import FUNCTIONS, JPEG, MAX_SIDE, PNG, Window
from dicom_io.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE
from node.catalogue.query import Held
from node.dicomweb.accept import Offer
from node.dicomweb.errors import BadRequest, NotAcceptable
from node.dicomweb.multipart import Part
from node.errors import NotFound

DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
METADATA_OFFERS: Final = (Offer(JSON), Offer("application/json"))
PICTURE_OFFERS: Final = (Offer(JPEG), Offer(PNG))
MAX_FRAMES: Final = 10_000  # of one request
_PIECE: Final = 1 << 20
_BULK_LIMIT: Final = 64 << 20  # bytes of a value that is not pixel data; a longer one is left out
_OPEN: Final = (
    16  # headers and places of frames that are kept; a viewer asks for one frame after the other
)


# --- whole objects ---


def object_offers(held: Sequence[Held]) -> list[Offer]:
    """What whole objects can be given as: parts of one answer; one alone also without parts."""
    syntaxes = {one.transfer_syntax_uid for one in held}
    syntax = syntaxes.pop() if len(syntaxes) == 1 else ""
    offers = [Offer(DICOM, syntax, multipart=True, stored=True)]
    return offers + ([Offer(DICOM, syntax, stored=True)] if len(held) == 1 else [])


def object_parts(held: Iterable[tuple[Held, Path]]) -> Iterator[Part]:
    """One part an object."""
    for one, path in held:
        yield Part(f"{DICOM}; transfer-syntax={one.transfer_syntax_uid}", pieces(path))


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


# --- metadata and bulk values ---


def metadata(held: Iterable[tuple[Held, Path]], base: str) -> Iterator[bytes]:
    """A JSON array, in pieces: each object's data set in the DICOM JSON model, long values by their address."""
    mark = b"["
    for one, path in held:
        parsed = _parsed(path)
        address = f"{base}{path_of(one)}/bulkdata/"
        model = to_json(
            parsed.dataset,
            lambda at, address=address: address + at,  # type: ignore[misc]
            pixels=parsed.pixels,
            big_endian=parsed.transfer_syntax_uid == EXPLICIT_BIG,
        )
        # PS3.18 8.7.3.3: in which syntax `frames` gives it
        model["00083002"] = {"vr": "UI", "Value": [one.transfer_syntax_uid]}
        yield mark + dumps(model)
        mark = b","
    yield b"]" if mark == b"," else b"[]"


def bulk(path: Path, at: str) -> tuple[Iterable[bytes], Offer | None]:
    """A bulk value by its path in the metadata, in pieces; of compressed pixel data one piece a frame, and then the
    offer says of what type. Raises NotFound where there is none, ImageRefused where pixel data cannot be read."""
    if at in ("7FE00008", "7FE00009", "7FE00010"):
        frames = frames_at(path)
        if f"{frames.pixels.tag:08X}" == at:
            if frames.pixels.length is not None:
                return frames.value(), None
            form = Offer(frames.media_type, frames.transfer_syntax_uid, multipart=True)
            return (frames.read(index) for index in range(frames.count)), form
    parsed = _parsed(path)
    big = parsed.transfer_syntax_uid == EXPLICIT_BIG
    value = bulk_value(parsed.dataset, at, big_endian=big)
    if value is None:
        raise NotFound(
            f"no bulk value at {at[:80]!r}; the metadata of the object names those it has"
        )
    return [value], None


def _parsed(path: Path) -> ParsedDataset:
    with path.open("rb") as file:
        return parse(file, limit=_BULK_LIMIT)


# --- frames and pictures ---


@lru_cache(maxsize=_OPEN)
def frames_at(path: Path) -> Frames:
    """Where the frames of a blob lie. A path names its content, so what was found once stays true."""
    return open_frames(path)


def frame_numbers(text: str, count: int) -> list[int]:
    """`1,3` as places counted from 0. Raises BadRequest for what is no list, NotFound for frames that are not there."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise BadRequest("frames are given by numbers with commas between, counted from 1")
    if len(words) > MAX_FRAMES:
        raise BadRequest(f"more than {MAX_FRAMES} frames; ask for them in several requests")
    numbers = [int(word) for word in words]
    if missing := [number for number in numbers if not 1 <= number <= count]:
        raise NotFound(f"no frame {missing[0]}; the object has {count}")
    return [number - 1 for number in numbers]


def frame_offers(frames: Frames, asked: int) -> list[Offer]:
    """What frames can be given as: as they are stored, and uncompressed; one alone also without parts."""
    stored = (frames.media_type, frames.transfer_syntax_uid)
    forms = [(*stored, True)]
    if frames.compressed and frames.samples == 1:
        forms.append((OCTETS, EXPLICIT_LITTLE, False))
    kinds = (True, False) if asked == 1 else (True,)
    return [
        Offer(media_type, syntax, multipart=many, stored=as_stored)
        for many in kinds
        for media_type, syntax, as_stored in forms
    ]


def frame_parts(
    frames: Frames, wanted: Sequence[int], offer: Offer, address: str
) -> Iterator[Part]:
    """One part a frame. The first is read at once, so that what cannot be read is said before the answer begins."""
    read = frames.read if offer.stored else frames.decoded

    def part(index: int) -> Part:
        return Part(offer.content_type, [read(index)], f"{address}/frames/{index + 1}")

    first = part(wanted[0])
    return chain([first], (part(index) for index in wanted[1:]))


def window_parameter(text: str | None) -> Window | None:
    """`centre,width,function` (PS3.18 8.3.5.1.4); None for none. Raises BadRequest."""
    if not text:
        return None
    parts = text.split(",")
    try:
        centre, width = float(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        raise BadRequest("window is centre,width,function, such as 500,300,linear") from None
    named = parts[2].upper().replace("-", "_") if len(parts) > 2 else FUNCTIONS[0]
    function = next((known for known in FUNCTIONS if known == named), None)
    least = 1.0 if function == "LINEAR" else 1e-6
    if function is None or not least <= width < 1e9 or not abs(centre) < 1e9:
        raise BadRequest("window: a width of at least 1, and linear, linear-exact or sigmoid")
    return Window(centre, width, function)


def viewport_parameter(text: str | None) -> tuple[int, int] | None:
    """`width,height` that the picture has to fit in (PS3.18 8.3.5.1.3); None for none. Raises BadRequest."""
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        raise BadRequest(
            "viewport is width,height in pixels; a part of the image cannot be asked for"
        )
    width, height = (int(part) for part in parts)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise BadRequest(f"viewport: from 1 to {MAX_SIDE} pixels")
    return width, height


def refused(error: ImageRefused) -> Exception:
    """What a client is told of an image that cannot be given as it asked."""
    if error.code is RefusalCode.NO_PIXELS:
        return NotFound("the object has no pixel data")
    return NotAcceptable(f"this object cannot be given so: {error}")


def path_of(one: Held) -> str:
    """The part of an object's address below the service's."""
    return f"/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_uid}"
