"""The routes of STOW-RS: a body is read as it comes, in memory no larger than a piece of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from dicom_io.json_model import dumps
from node import log
from node.dicomweb.multipart import BadMultipart, TooLarge, boundary_of
from node.dicomweb.retrieve import DICOM, JSON
from node.dicomweb.routes import base_of
from node.dicomweb.store import Receiver, model_of, status_of
from node.errors import NodeError
from node.web.guard import DICOMWEB
from node.web.pages import Here

_TICK_S = 1.0

router = APIRouter(prefix=DICOMWEB)


@router.post("/studies")
@router.post("/studies/{study_uid}")
async def store(node: Here, request: Request) -> Response:
    """Keep the objects of the body; nothing good is said of one before it is on disk and its row committed."""
    try:
        boundary, kind = boundary_of(request.headers.get("content-type", ""))
        if kind not in ("", DICOM):
            raise BadMultipart(f"parts of {kind} are not taken; send {DICOM}")
    except BadMultipart as error:
        return _refused(415, str(error))
    study_uid = request.path_params.get("study_uid", "")
    receiver = Receiver(node.settings, node.db, node.store, study_uid, boundary)
    try:
        async with _ticking(receiver):
            stream = request.stream()
            async for data in _in_time(stream, node.settings.network_timeout_s):
                await run_in_threadpool(receiver.feed, data)
        outcomes = receiver.finish()
    except TooLarge as error:
        return _refused(413, str(error))
    except BadMultipart as error:
        return _refused(400, str(error))
    except (ClientDisconnect, TimeoutError):
        # what was whole is kept, as after an association that breaks off; nobody hears the answer
        log.get().warning("store request broken off", count=len(receiver.outcomes))
        return _refused(408, "the body did not come to its end in time; send it again")
    finally:
        with suppress(NodeError, SQLAlchemyError):  # a row of activity becomes stale by itself
            await run_in_threadpool(receiver.close)
    if not outcomes:
        return _refused(400, "the body has no parts")
    body = dumps(model_of(outcomes, base_of(request)))
    return Response(body, status_of(outcomes), media_type=JSON)


async def _in_time(stream: AsyncIterator[bytes], limit_s: float) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises TimeoutError where one does not come within the limit, in seconds."""
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), limit_s)
        except StopAsyncIteration:
            return


@asynccontextmanager
async def _ticking(receiver: Receiver) -> AsyncIterator[None]:
    """Keep the study open while its objects arrive, however slowly."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            with suppress(NodeError, SQLAlchemyError):  # the next one may succeed
                await run_in_threadpool(receiver.tick)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": "Not taken", "message": message}, status)
