"""Codes of breast imaging: what is read, then what is written.

Old objects carry SNOMED-RT codes (schemes SRT, SNM3 or 99SDM), newer ones SNOMED CT (SCT); both name one concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ViewFamily = Literal["CC", "MLO"]

# --- Reading: views (PS3.16 CID 4014) and their modifiers (CID 4015) ---


@dataclass(frozen=True)
class View:
    """A mammographic view. `family` is the standard view it resembles most: seen from above, or from the side."""

    name: str
    meaning: str
    family: ViewFamily
    sct: str
    srt: str


VIEWS: Final = (
    View("CC", "cranio-caudal", "CC", "399162004", "R-10242"),
    View("MLO", "medio-lateral oblique", "MLO", "399368009", "R-10226"),
    View("ML", "medio-lateral", "MLO", "399260004", "R-10224"),
    View("LM", "latero-medial", "MLO", "399352003", "R-10228"),
    View("LMO", "latero-medial oblique", "MLO", "399099002", "R-10230"),
    View("FB", "caudo-cranial (from below)", "CC", "399196006", "R-10244"),
    View("SIO", "superolateral to inferomedial oblique", "MLO", "399188001", "R-102D0"),
    View("ISO", "inferomedial to superolateral oblique", "MLO", "441555000", "R-40AAA"),
    View("XCCL", "cranio-caudal exaggerated laterally", "CC", "399192008", "R-1024A"),
    View("XCCM", "cranio-caudal exaggerated medially", "CC", "399101009", "R-1024B"),
)


@dataclass(frozen=True)
class ViewModifier:
    """A change to a view. `whole_breast` is False where only a part of the breast is seen, or both breasts."""

    name: str
    meaning: str
    whole_breast: bool
    sct: str
    srt: str


VIEW_MODIFIERS: Final = (
    ViewModifier("CV", "cleavage", False, "399161006", "R-102D2"),
    ViewModifier("AT", "axillary tail", False, "399011000", "R-102D1"),
    ViewModifier("AX", "axillary tissue", False, "442580003", "R-40AB2"),
    ViewModifier("RL", "rolled lateral", True, "399197002", "R-102D3"),
    ViewModifier("RM", "rolled medial", True, "399226006", "R-102D4"),
    ViewModifier("RI", "rolled inferior", True, "414493004", "R-102CA"),
    ViewModifier("RS", "rolled superior", True, "415670009", "R-102C9"),
    ViewModifier("ID", "implant displaced", True, "399209000", "R-102D5"),
    ViewModifier("M", "magnification", False, "399163009", "R-102D6"),
    ViewModifier("S", "spot compression", False, "399055006", "R-102D7"),
    ViewModifier("TAN", "tangential", False, "399110001", "R-102C2"),
    ViewModifier("NP", "nipple in profile", True, "442581004", "R-40AB3"),
    ViewModifier("IMF", "infra-mammary fold", True, "442593008", "R-40ABE"),
    ViewModifier("AC", "anterior compression", True, "441752004", "P2-00161"),
)

_VIEWS_BY_CODE: Final = {code: view for view in VIEWS for code in (view.sct, view.srt)}
_VIEWS_BY_NAME: Final = {view.name: view for view in VIEWS} | {"XCC": VIEWS[8]}
_MODIFIERS_BY_CODE: Final = {code: item for item in VIEW_MODIFIERS for code in (item.sct, item.srt)}


def view_from_code(value: str) -> View | None:
    """The view of an SCT or SNOMED-RT code value; the values of the two never collide, so the scheme is not needed."""
    return _VIEWS_BY_CODE.get(value.strip())


def view_from_name(name: str) -> View | None:
    """The view of a View Position (0018,5101) such as "CC" or "mlo"."""
    return _VIEWS_BY_NAME.get(name.strip().upper())


def modifier_from_code(value: str) -> ViewModifier | None:
    """The view modifier of an SCT or SNOMED-RT code value."""
    return _MODIFIERS_BY_CODE.get(value.strip())


# --- Anatomy and side, read and written ---

BREAST: Final = ("76752008", "SCT", "Breast")
