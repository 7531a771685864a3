"""The application: routes, guard and the one table from errors to HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import ProgrammingError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from node import log
from node.blobs import BlobStore
from node.catalogue.match import BadKey
from node.config import Settings
from node.db import Database
from node.dicomweb import routes as dicomweb
from node.dicomweb import store_routes
from node.dicomweb.errors import BadRequest, NotAcceptable
from node.errors import ConfigError, Conflict, InvalidLabel, NodeError, NotFound, Transient
from node.web import labels, learning, metrics, pages, trainings, viewer
from node.web.guard import HEADERS, Guard
from node.web.render import STATIC, VERSION, error_page

_STATUS: tuple[tuple[type[NodeError], int, str], ...] = (
    (NotFound, 404, "Not here"),
    (Conflict, 409, "Not now"),
    (ConfigError, 400, "Not understood"),
    (InvalidLabel, 400, "Not understood"),
    (BadKey, 400, "Not understood"),
    (BadRequest, 400, "Not understood"),
    (NotAcceptable, 406, "Not in that form"),
    (Transient, 503, "The node is not well"),
    (NodeError, 500, "That did not work"),
)


def create_app(settings: Settings) -> FastAPI:
    """The web application of one node. Connects to the database only when a page is asked for."""
    db = Database(settings.db_url)
    store = BlobStore.of(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        db.dispose()

    app = FastAPI(
        title="Tomonode",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,  # these pages would load their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    app.state.node = pages.Node(settings, db, store)
    app.include_router(labels.router)  # first: its addresses lie below a study's
    for part in (dicomweb, store_routes, pages, trainings, learning, metrics):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(viewer.Viewer, folder=viewer.folder_of(settings))
    app.add_middleware(Guard, settings=settings)  # around the viewer, too
    app.add_exception_handler(NodeError, _node_error)
    app.add_exception_handler(ProgrammingError, _no_schema)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    return app


def _answer(request: Request, status: int, title: str, message: str) -> Response:
    """An error for whoever asked: a page for people, JSON for programs."""
    if request.url.path.startswith(("/api/", f"{dicomweb.PREFIX}/")):
        return JSONResponse({"error": title, "message": message}, status)
    return error_page(status, title, message)


def _node_error(request: Request, error: Exception) -> Response:
    for kind, status, title in _STATUS:
        if isinstance(error, kind):
            return _answer(request, status, title, str(error))
    raise error


def _no_schema(request: Request, error: Exception) -> Response:
    log.get().error("schema does not fit", code=type(error).__name__)
    message = "the database is not at the schema of this program; run `tomonode db upgrade`"
    return _answer(request, 503, "The node is not well", message)


def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"][0] == "path":
        return _answer(
            request, 404, "Not here", "no page has this address; the work list has all studies"
        )
    return _answer(request, 400, "Not understood", f"{first['loc'][-1]}: {first['msg']}")


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "no page has this address; the work list has all studies"
    if error.status_code != HTTPStatus.NOT_FOUND:
        message = error.detail
    title = "Not here" if error.status_code == HTTPStatus.NOT_FOUND else "Not understood"
    return _answer(request, error.status_code, title, message)


def _fault(_request: Request, error: Exception) -> Response:
    # The boundary to the person: no stack trace, and of the error only its type, for it may quote a data set.
    log.get().error("fault", code=type(error).__name__)
    answer = error_page(500, "A fault of the program", "the node's log has more; please report it")
    answer.headers.update(HEADERS)  # this one is sent from outside the guard
    return answer
