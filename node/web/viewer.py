"""The OHIF viewer, as its makers publish it, on the same origin as the node's DICOMweb (docs/viewer.md).

Its files lie in `HOME/viewer`, where `make viewer` puts them; nothing of them is changed. They expect to be at the root
of a host, so they are served there: each by its exact name, which none of our pages has. Only its configuration is
ours, and its service worker, which would load code from elsewhere, is left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from node.config import Settings
from node.web.guard import DICOMWEB

PAGE: Final = "/viewer"
CONFIG: Final = "/app-config.js"
_INDEX: Final = "index.html"
_LEFT_OUT: Final = frozenset(
    {"app-config.js", "init-service-worker.js", "sw.js", "_headers", "_redirects"}
)
_INLINE: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_HASHED: Final = re.compile(r"[0-9a-f]{16}")  # in the name of a file whose content never changes
# Said here, because what a system says of endings differs and browsers are told not to guess.
_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_NOTICE: Final = "Tomonode: research use only, not for clinical use"
# What cannot be said in JSON. OHIF takes every measurement of a report to have coordinates and fails on those whose
# place is a segment, as in our reports; so it is told that nothing of them is left to draw.
_CODE: Final = """\
window.config.whiteLabeling = {
  createLogoComponentFn: (React) => React.createElement('a', { href: '/', className: 'text-white text-sm' }, %s),
};
window.config.customizationService = [{
  onBeforeSRAddMeasurement: {
    $set: ({ measurement }) =>
      measurement.coords?.length ? measurement : Object.assign(measurement, { coords: [{}], loaded: true }),
  },
}];
"""


def folder_of(settings: Settings) -> Path:
    """Where the viewer's files lie, if they do."""
    return settings.home / "viewer"


def address(settings: Settings, study_uid: str) -> str | None:
    """The page that shows a study in the viewer; None where the viewer is not installed."""
    if not (folder_of(settings) / _INDEX).is_file():
        return None
    return f"{PAGE}?{urlencode({'StudyInstanceUIDs': study_uid})}"


class Viewer:
    """ASGI middleware that answers for the viewer's files and hands everything else on.

    Args:
        app: what answers otherwise.
        folder: of the viewer's files; where there are none, nothing is answered here. It is looked at once.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._files = _files(folder)
        index = self._files.get(PAGE)
        self._rules = policy(index.read_text("utf-8")) if index else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        answer = None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            answer = self._answer(scope["path"])
        await (answer or self._app)(scope, receive, send)

    def _answer(self, path: str) -> Response | None:
        if not self._files:
            return None
        if path == CONFIG:
            return Response(configuration(), media_type="text/javascript")
        file = self._files.get(path)
        if file is None:
            return None
        lasting = _HASHED.search(file.name) is not None
        kept = "public, max-age=31536000, immutable" if lasting else "no-cache"
        headers = {"Content-Security-Policy": self._rules, "Cache-Control": kept}
        return FileResponse(file, media_type=_TYPES[file.suffix], headers=headers)


def policy(index: str) -> str:
    """The Content-Security-Policy of the viewer's page, and of its workers, which have that of their own file.

    What stands in the page as a script is allowed by its hash. Decoders are WebAssembly, workers are made from blobs,
    styles are set by scripts; nothing comes from, or goes to, another host. The decoders' own code, and that which
    unpacks segmentations, puts functions together from text: that has to be allowed (`unsafe-eval`), here alone.
    """
    hashes = [hashlib.sha256(text.encode()).digest() for text in _INLINE.findall(index)]
    listed = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' blob:{listed}; worker-src 'self' blob:;"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:;"
        " connect-src 'self' data: blob:; manifest-src 'self'; form-action 'none'; base-uri 'none';"
        " frame-ancestors 'none'"
    )


def configuration(*, whole_segmentations: bool = False) -> str:
    """The viewer's configuration: this node's DICOMweb as the only source, no list of studies (ours is the list).

    OHIF 3.13.2 would take a segmentation as a whole and unpack it with the bits of a byte in the wrong order, which
    shows where frames do not end on a byte. Asked for one by one, they come right; `whole_segmentations` is for a
    server that does not give single frames of one bit.
    """
    config: dict[str, Any] = {
        "name": "tomonode",
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": False,
        "showLoadingIndicator": True,
        "showWarningMessageForCrossOrigin": True,
        "strictZSpacingForVolumeViewport": True,
        "maxNumberOfWebWorkers": 3,
        "investigationalUseDialog": {"option": "always"},
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": {
                    "friendlyName": "Tomonode",
                    "name": "tomonode",
                    "qidoRoot": DICOMWEB,
                    "wadoRoot": DICOMWEB,
                    "wadoUriRoot": DICOMWEB,
                    "qidoSupportsIncludeField": True,
                    "supportsFuzzyMatching": False,
                    "supportsWildcard": True,
                    "supportsReject": False,
                    "imageRendering": "wadors",
                    "thumbnailRendering": "wadors",
                    "enableStudyLazyLoad": True,
                    "staticWado": False,
                    "singlepart": "",
                    "bulkDataURI": {"enabled": True},
                    "omitQuotationForMultipartRequest": True,
                    "loadMultiframeAsPart10": whole_segmentations,
                },
            }
        ],
    }
    code = _CODE % json.dumps(_NOTICE)
    return f"// made by Tomonode\nwindow.config = {json.dumps(config, indent=2)};\n{code}"


def _files(folder: Path) -> dict[str, Path]:
    """The viewer's files by the path of their address; empty where it is not installed."""
    if not (folder / _INDEX).is_file():
        return {}
    found = {
        f"/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES and path.name not in _LEFT_OUT and path.is_file()
    }
    return {**found, PAGE: folder / _INDEX}
