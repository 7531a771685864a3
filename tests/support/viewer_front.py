"""The viewer's files in front of another DICOMweb server: `python -m tests.support.viewer_front FOLDER URL PORT`.

OHIF's addresses begin at the root of a host, and it asks for DICOMweb on the same one: so its files are served by the
node's own middleware, and `/dicom-web` is passed on as it is, the host's name included. Its configuration is the node's
but for segmentations, which are asked for as a whole: Orthanc 1.10.1 gives no single frames of one bit.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from node.web.viewer import CONFIG, Viewer, configuration

_HOP: frozenset[str] = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade"}
)


def application(folder: Path, upstream: str) -> ASGIApp:
    """The viewer, and everything below `/dicom-web` from `upstream`, the root of a host."""
    client = httpx.AsyncClient(base_url=upstream, trust_env=False, timeout=120)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    async def passed_on(request: Request) -> StreamingResponse:
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP]
        url = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        asked = client.build_request(request.method, url, headers=headers)
        answer = await client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for piece in answer.aiter_raw():
                yield piece
            await answer.aclose()

        given = {k: v for k, v in answer.headers.items() if k not in _HOP}
        return StreamingResponse(body(), answer.status_code, given)

    async def config(_request: Request) -> Response:
        return Response(configuration(whole_segmentations=True), media_type="text/javascript")

    routes = [Route("/dicom-web/{rest:path}", passed_on, methods=["GET"])]
    served = Viewer(Starlette(routes=routes), folder)
    return Starlette(routes=[Route(CONFIG, config), Mount("/", served)], lifespan=lifespan)


if __name__ == "__main__":
    files, url, port = sys.argv[1:]
    uvicorn.run(
        application(Path(files), url), host="127.0.0.1", port=int(port), log_level="warning"
    )
