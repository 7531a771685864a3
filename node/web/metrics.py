"""`/metrics`: gauges in Prometheus' text format (version 0.0.4). There is no log-in: keep it inside, as the pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastapi import APIRouter
from starlette.responses import Response

from node.db import now
from node.views.metrics import Metric, metrics
from node.web.pages import Here

router = APIRouter()

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics")
def show_metrics(node: Here) -> Response:
    """All gauges."""
    with node.db.reading() as session:
        found = metrics(session, node.settings, now(session))
    return Response(exposition(found), media_type=_TYPE)


def exposition(found: Sequence[Metric]) -> str:
    """Gauges as Prometheus reads them; their names begin with `tomonode_`."""
    return "".join(f"{line}\n" for metric in found for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    name = f"tomonode_{metric.name}"
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} gauge"
    for labels, value in metric.samples:
        yield f"{name}{_labels(labels)} {value!r}"


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
