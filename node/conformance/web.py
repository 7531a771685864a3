"""Of the statement: DICOMweb resources (PS3.18), from the routes that answer, and the settings of the network."""

from __future__ import annotations

from fastapi.routing import APIRoute

from node.config import Settings
from node.conformance.markdown import sentence, table
from node.dicomweb import routes, store_routes

_FIRST, _LAST = (
    "ae_title",
    "rules",
)  # of the settings that concern other systems, in the order they are written
_WEB = ("web_host", "web_port", "web_certificate", "web_key")


def resources() -> list[str]:
    """Every address under the DICOMweb service."""
    rows: list[tuple[str, str, str]] = []
    for router, service in ((routes.router, ""), (store_routes.router, "STOW-RS")):
        for route in router.routes:
            assert isinstance(route, APIRoute)
            methods = ", ".join(sorted(route.methods or ()))
            rows.append(
                (
                    service or _service(route.path),
                    f"{methods} `{route.path}`",
                    sentence(route.endpoint.__doc__),
                )
            )
    rows.sort(key=lambda row: (row[0], row[1].replace("`", "")))
    return table(("service", "resource", "what"), rows)


def _service(path: str) -> str:
    """Search ends in a collection, retrieval in one thing or a part of it (PS3.18 10.4, 10.6)."""
    return "QIDO-RS" if path.endswith(("/studies", "/series", "/instances")) else "WADO-RS"


def settings() -> list[str]:
    """Settings of the network with their defaults."""
    names = list(Settings.model_fields)
    chosen = [*names[names.index(_FIRST) : names.index(_LAST)], *_WEB]
    rows = []
    for name in chosen:
        default = Settings.model_fields[name].default
        if isinstance(default, frozenset | tuple):
            default = ", ".join(sorted(default)) or "any"
        rows.append((f"`TOMONODE_{name.upper()}`", "none" if default is None else f"`{default}`"))
    return table(("setting", "default"), rows)
