"""Templates and the words in them. Everything that comes from outside is escaped by jinja2."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from node.views import STATUSES
from node.views.words import between, size

VERSION = version("tomonode")
STATIC = Path(__file__).parent / "static"
_UID_SHOWN = 22


def page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    """A rendered page. `now` is the present time unless it is among the values."""
    values.setdefault("now", datetime.now(UTC))
    values.setdefault("overview", None)
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(values), status)


def error_page(status: int, title: str, message: str) -> HTMLResponse:
    """A page that says in one line what went wrong; needs no database."""
    return page("error.html", status, title=title, message=message)


def exact(at: datetime) -> str:
    """A time to the second, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(at: datetime | None, now: datetime) -> Markup:
    """A relative time as a `<time>` element with the exact one in its title; a dash for none."""
    if at is None:
        return Markup("–")
    words = f"in {between(now, at)}" if at > now else f"{between(at, now)} ago"
    html = '<time datetime="{}" title="{}">{}</time>'
    return Markup(html).format(at.isoformat(timespec="seconds"), exact(at), words)


def short_uid(uid: str) -> str:
    """The end of a long UID, which tells two apart; templates put the whole one in the title."""
    return uid if len(uid) <= _UID_SHOWN else f"…{uid[1 - _UID_SHOWN :].lstrip('.')}"


def ticks(text: str) -> Markup:
    """A message with its `commands` as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def path_part(text: str) -> str:
    """One part of a URL's path, whatever it holds."""
    return quote(text, safe="")


def query(**values: object) -> str:
    """A query string of the values that are set, with its question mark; empty when none is."""
    given = {name: value for name, value in values.items() if value not in (None, "", 0)}
    return f"?{urlencode(given)}" if given else ""


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ago=ago, exact=exact, size=size, short_uid=short_uid, ticks=ticks, path_part=path_part
    )
    environment.globals.update(version=VERSION, statuses=STATUSES, query=query, between=between)
    return environment


_ENVIRONMENT = _environment()
