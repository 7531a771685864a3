"""The DICOMweb services under `/dicom-web`: QIDO-RS and WADO-RS (PS3.18 10.4, 10.6). Only what the catalogue lists is
found here: quarantined objects, and results in shadow or superseded, cannot be read. Nothing here writes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from dicom_io.errors import DicomIoError, ImageRefused
from dicom_io.json_model import dumps
from dicom_io.rendered import JPEG, render, thumbnail
from node.catalogue import query as catalogue
from node.catalogue.attributes import Level
from node.catalogue.query import Held
from node.dicomweb import multipart, retrieve
from node.dicomweb.accept import MULTIPART, NotAMediaType, Offer, choose
from node.dicomweb.errors import BadRequest, NotAcceptable
from node.dicomweb.query import model_of, more_warning, search_of
from node.errors import NotFound
from node.web.guard import DICOMWEB
from node.web.pages import Here, Node, stored

PREFIX: Final = DICOMWEB
# An object never changes under its UID, but it may cease to be given out: so a copy is asked about again.
_KEPT: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept"}

T = TypeVar("T")
router = APIRouter(prefix=PREFIX)

# parameters of an address, and what they are keys of
_KEYS: Final = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "sop_uid": "SOPInstanceUID",
}
_STUDY = "/studies/{study_uid}"
_SERIES = _STUDY + "/series/{series_uid}"
_INSTANCE = _SERIES + "/instances/{sop_uid}"


# --- QIDO-RS ---


@router.get("/studies")
def studies(node: Here, request: Request) -> Response:
    """Studies that match."""
    return _search(node, request, Level.STUDY)


@router.get(_STUDY + "/series")
@router.get("/series")
def series(node: Here, request: Request) -> Response:
    """Series that match, of one study or of all."""
    return _search(node, request, Level.SERIES)


@router.get(_SERIES + "/instances")
@router.get(_STUDY + "/instances")
@router.get("/instances")
def instances(node: Here, request: Request) -> Response:
    """Objects that match, of one series, of one study or of all."""
    return _search(node, request, Level.IMAGE)


def _search(node: Node, request: Request, level: Level) -> Response:
    offer = _chosen(request, retrieve.METADATA_OFFERS)
    search = search_of(request.query_params.multi_items())
    in_path = {_KEYS[name]: uid for name, uid in request.path_params.items()}
    keys = {**search.keys, **in_path}
    with node.db.reading() as session:
        found = catalogue.find(session, level, keys, search.limit + 1, search.offset)
    base = base_of(request)
    body = dumps(model_of(match, base) for match in found[: search.limit])
    answer = Response(body, media_type=offer.media_type)
    for warning in (*search.warnings, *more_warning(found, search.limit)):
        answer.headers.append("Warning", warning)
    return answer


# --- WADO-RS: objects, metadata, bulk values ---


@router.get(_STUDY)
@router.get(_SERIES)
@router.get(_INSTANCE)
def objects(node: Here, request: Request) -> Response:
    """Whole objects, as they are stored."""
    held = _held(node, request)
    offer = _chosen(request, retrieve.object_offers(held))
    if (same := _unchanged(request, held, offer)) is not None:
        return same
    paths = _paths(node, held)
    if offer.multipart:
        return _parts(retrieve.object_parts(paths), offer.media_type, _tags(held, offer))
    one, path = next(paths)
    headers = {**_tags(held, offer), "Content-Length": str(one.size_bytes)}
    content = retrieve.pieces(path)
    return StreamingResponse(content, headers=headers, media_type=offer.content_type)


@router.get(_STUDY + "/metadata")
@router.get(_SERIES + "/metadata")
@router.get(_INSTANCE + "/metadata")
def metadata(node: Here, request: Request) -> Response:
    """Data sets without bulk values, as DICOM JSON."""
    held = _held(node, request)
    offer = _chosen(request, retrieve.METADATA_OFFERS)
    if (same := _unchanged(request, held, offer)) is not None:
        return same
    body = retrieve.metadata(_paths(node, held), base_of(request))
    return StreamingResponse(body, headers=_tags(held, offer), media_type=offer.media_type)


@router.get(_INSTANCE + "/bulkdata/{at:path}")
def bulk(node: Here, request: Request, at: str) -> Response:
    """One bulk value, by the address that the metadata gives."""
    held = _held(node, request)
    path = _path(node, held[0])
    content, form = _readable(lambda: retrieve.bulk(path, at))
    octets = (Offer("application/octet-stream", multipart=many) for many in (True, False))
    offer = _chosen(request, [form] if form else list(octets))
    headers = _tags(held, offer)
    if form is not None:
        parts = (multipart.Part(form.content_type, [frame]) for frame in content)
        return _parts(parts, form.media_type, headers)
    if offer.multipart:
        return _parts([multipart.Part(offer.media_type, content)], offer.media_type, headers)
    return StreamingResponse(iter(content), headers=headers, media_type=offer.media_type)


# --- WADO-RS: frames and pictures ---


@router.get(_INSTANCE + "/frames/{numbers}")
def frames(node: Here, request: Request, numbers: str) -> Response:
    """Frames, as they are stored or uncompressed."""
    held = _held(node, request)
    path = _path(node, held[0])
    found = _readable(lambda: retrieve.frames_at(path))
    wanted = retrieve.frame_numbers(numbers, found.count)
    offer = _chosen(request, retrieve.frame_offers(found, len(wanted)))
    if (same := _unchanged(request, held, offer)) is not None:
        return same
    address = base_of(request) + retrieve.path_of(held[0])
    parts = _readable(lambda: retrieve.frame_parts(found, wanted, offer, address))
    headers = _tags(held, offer)
    if not offer.multipart:
        one = b"".join(next(parts).content)
        return Response(one, headers=headers, media_type=offer.content_type)
    if len(wanted) == 1:
        return _whole(parts, offer.media_type, headers)
    return _parts(parts, offer.media_type, headers)


@router.get(_INSTANCE + "/rendered")
@router.get(_INSTANCE + "/frames/{numbers}/rendered")
def rendered(
    node: Here,
    request: Request,
    numbers: str = "1",
    window: str | None = None,
    viewport: str | None = None,
    quality: str | None = None,
) -> Response:
    """One frame as a picture; without a number the first."""
    held = _held(node, request)
    offer = _chosen(request, retrieve.PICTURE_OFFERS)
    shown, size = retrieve.window_parameter(window), retrieve.viewport_parameter(viewport)
    if quality is not None and not (quality.isascii() and quality.isdigit() and len(quality) < 4):
        raise BadRequest("quality is a number from 1 to 100")
    path = _path(node, held[0])
    found = _readable(lambda: retrieve.frames_at(path))
    wanted = retrieve.frame_numbers(numbers, found.count)
    if len(wanted) > 1:
        raise BadRequest("one picture at a time; ask for each frame by itself")
    picture = _readable(
        lambda: render(
            found, wanted[0], offer.media_type, window=shown, size=size, quality=int(quality or 90)
        )
    )
    return Response(picture, headers=_tags(held, offer, picture=True), media_type=offer.media_type)


@router.get(_INSTANCE + "/thumbnail")
def small(node: Here, request: Request) -> Response:
    """A small picture of the middle frame."""
    held = _held(node, request)
    offer = _chosen(request, [Offer(JPEG)])
    path = _path(node, held[0])
    picture = _readable(lambda: thumbnail(retrieve.frames_at(path)))
    return Response(picture, headers=_tags(held, offer, picture=True), media_type=JPEG)


# --- what they share ---


def _held(node: Node, request: Request) -> list[Held]:
    """The objects that the address names, at least one."""
    named = [[uid] if (uid := request.path_params.get(name)) else [] for name in _KEYS]
    with node.db.reading() as session:
        found = catalogue.held(session, *named)
    if not found:
        raise NotFound("no such study, series or instance; a search lists what is here")
    return found


def _paths(node: Node, held: Sequence[Held]) -> Iterator[tuple[Held, Path]]:
    """Where objects lie. The first is found at once, so that its want is said before the answer begins."""
    first = _path(node, held[0])

    def all_of_them() -> Iterator[tuple[Held, Path]]:
        yield held[0], first
        for one in held[1:]:
            yield one, _path(node, one)

    return all_of_them()


def _path(node: Node, one: Held) -> Path:
    path = stored(node, one.sha256)
    if path is None:
        raise NotFound(
            f"{one.sop_uid} is not in the blob store ({one.sha256}); see `tomonode doctor`"
        )
    return path


def _readable(read: Callable[[], T]) -> T:
    """What `read` gives; what is wrong with the object is said as a refusal."""
    try:
        return read()
    except ImageRefused as error:
        raise retrieve.refused(error) from error
    except DicomIoError as error:
        raise NotAcceptable(f"this object cannot be read: {error}") from error


def _chosen(request: Request, offers: Sequence[Offer]) -> Offer:
    accept = request.query_params.get("accept") or ",".join(request.headers.getlist("accept"))
    try:
        offer = choose(accept, offers)
    except NotAMediaType as error:
        raise BadRequest(str(error)) from error
    if offer is None:
        forms = "; or ".join(sorted({_described(one) for one in offers}))
        raise NotAcceptable(f"nothing here that the Accept header allows; there is: {forms}")
    return offer


def _described(offer: Offer) -> str:
    whole = f'{MULTIPART}; type="{offer.media_type}"'
    return whole if offer.multipart else offer.media_type


def _tags(held: Sequence[Held], offer: Offer, *, picture: bool = False) -> dict[str, str]:
    return dict(_KEPT) if picture or len(held) > 1 else {**_KEPT, "ETag": _etag(held[0], offer)}


def _etag(one: Held, offer: Offer) -> str:
    form = f"{offer.media_type}{offer.transfer_syntax}{offer.multipart}".encode()
    return f'"{one.sha256[:32]}-{zlib.crc32(form):08x}"'


def _unchanged(request: Request, held: Sequence[Held], offer: Offer) -> Response | None:
    """304 where the client has this form of the object already (RFC 9110 13.1.2)."""
    known = request.headers.get("if-none-match", "")
    if len(held) > 1 or _etag(held[0], offer) not in known:
        return None
    return Response(status_code=304, headers=_tags(held, offer))


def _parts(parts: Iterable[multipart.Part], media_type: str, headers: dict[str, str]) -> Response:
    boundary = multipart.new_boundary()
    return StreamingResponse(
        multipart.write(parts, boundary),
        headers=headers,
        media_type=multipart.content_type(boundary, media_type),
    )


def _whole(parts: Iterable[multipart.Part], media_type: str, headers: dict[str, str]) -> Response:
    """The parts in one piece: each piece of a stream costs a change of threads, and a viewer asks frame by frame."""
    boundary = multipart.new_boundary()
    body = b"".join(multipart.write(parts, boundary))
    kind = multipart.content_type(boundary, media_type)
    return Response(body, headers=headers, media_type=kind)


def base_of(request: Request) -> str:
    """The address of the services, as the client knows the host."""
    return str(request.base_url).rstrip("/") + PREFIX
