"""The kinds of result objects that a run can make, in the order in which they are sent: what is referred to goes first.

What each of them is stands in `docs/results.md`; `workers` makes them.
"""

from __future__ import annotations

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

#: Pictures for the study's page: never sent.
OVERLAY = "OVERLAY"
