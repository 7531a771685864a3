"""The kinds of result objects that a run can make, in the order in which they are sent: what is referred to goes first.

What each of them is stands in `docs/results.md`; `workers.results` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.errors import ConfigError

SEG = "SEG"
SEG_JPEG2000 = "SEG_JPEG2000"
SEG_FRACTIONAL = "SEG_FRACTIONAL"
SEG_LABELMAP = "SEG_LABELMAP"
PARAMETRIC_MAP = "PMAP"
KEY_IMAGE = "KEY_IMAGE"
SR = "SR"
CAD_SR = "CAD_SR"
KEY_OBJECTS = "KEY_OBJECTS"

KINDS = (
    SEG,
    SEG_JPEG2000,
    SEG_FRACTIONAL,
    SEG_LABELMAP,
    PARAMETRIC_MAP,
    KEY_IMAGE,
    SR,
    CAD_SR,
    KEY_OBJECTS,
)

#: What a destination gets that was not told otherwise; every run makes them.
USUAL = (SEG, SR)

#: Documents of a study; one that replaces an earlier run's names it.
DOCUMENTS = (SR, CAD_SR, KEY_OBJECTS)

#: The same instance as SEG in another form, under the same UID: a peer gets one of the two, and queries find SEG.
TWIN = SEG_JPEG2000

#: Pictures for the study's page: never sent.
OVERLAY = "OVERLAY"

_REFERRED = {SR: (SEG,), KEY_OBJECTS: (SEG, KEY_IMAGE)}


def ordered(kinds: Iterable[str]) -> tuple[str, ...]:
    """These kinds, once each, in the order of sending."""
    found = set(kinds)
    return tuple(kind for kind in KINDS if kind in found)


def chosen(words: Iterable[str]) -> tuple[str, ...]:
    """Kinds as somebody named them, once each, in the order of sending.

    Raises:
        ConfigError: none, one that is not known, or SEG in both of its forms.
    """
    named = [word.strip().upper() for word in words if word.strip()]
    unknown = [word for word in named if word not in KINDS]
    if unknown or not named:
        said = f"kind of result {unknown[0]!r} is not known" if unknown else "no kind of result"
        raise ConfigError(f"{said}; give some of {', '.join(KINDS)}")
    if SEG in named and TWIN in named:
        raise ConfigError(
            f"{SEG} and {TWIN} are one object in two forms, which a peer cannot both keep; give one of them"
        )
    return ordered(named)


def not_sent_along(kinds: Iterable[str]) -> tuple[str, ...]:
    """What documents among these kinds refer to and is not among them."""
    given = {SEG if kind == TWIN else kind for kind in kinds}
    referred = {other for kind in given for other in _REFERRED.get(kind, ())}
    return ordered(referred - given)
