"""Phantom studies on disk: the voxel model of `gmic.phantom` written by `dicom_io.phantom`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_io.phantom import LesionTruth, PhantomStudy, PhantomView, Syntax, write_study
from gmic.errors import InputError
from gmic.phantom import VIEWS, PhantomSpec, make_phantom, study_plan
from gmic.phantom_lesion import KINDS, Lesion

Say = Callable[[str], None]


@dataclass(frozen=True)
class PhantomPlan:
    """What to make: `shape` is (slices, rows, columns) of every view; `lesion` is None, "malignant" or "benign", in
    breast `breast` ("L", "R")."""

    seed: int = 1
    views: Sequence[str] = VIEWS
    shape: tuple[int, int, int] = (24, 2457, 1890)
    lesion: str | None = "malignant"
    breast: str = "L"
    syntax: Syntax = "explicit"
    spacing_mm: float = 0.1
    slice_mm: float = 1.0


def write_phantom(out_dir: Path, plan: PhantomPlan, say: Say = lambda _line: None) -> PhantomStudy:
    """Make a study, a view at a time, and write its DICOM files and truth.json into a folder.

    Raises:
        InputError, InvalidPhantom: the plan describes nothing that can be made.
        OSError: the folder cannot be written.
    """
    if unknown := [view for view in plan.views if view not in VIEWS]:
        raise InputError(f"view {unknown[0]!r} of a phantom; give some of {', '.join(VIEWS)}")
    if not plan.views:
        raise InputError(f"no view of a phantom; give some of {', '.join(VIEWS)}")
    if plan.lesion not in (None, *KINDS):
        raise InputError(f"lesion kind {plan.lesion!r}; give one of {', '.join(KINDS)}, none")
    specs = study_plan(
        plan.seed,
        plan.shape,
        plan.views,
        lesion_breast=plan.breast if plan.lesion else None,
        kind=plan.lesion or KINDS[0],
        spacing_mm=plan.spacing_mm,
        slice_mm=plan.slice_mm,
    )
    return write_study(out_dir, phantom_views(specs, say), seed=plan.seed, syntax=plan.syntax)


def phantom_views(
    specs: Sequence[PhantomSpec], say: Say = lambda _line: None
) -> Iterator[PhantomView]:
    """The views of these specifications as `dicom_io.phantom` writes them, made one by one."""
    for spec in specs:
        phantom = make_phantom(spec)
        depth, height, width = phantom.volume_DHW.shape
        what = ", ".join(lesion.label for lesion in phantom.lesions) or "no"
        say(f"{spec.laterality}-{spec.view}: {depth} x {height} x {width}, {what} lesion")
        yield PhantomView(
            laterality="L" if spec.laterality == "L" else "R",
            view=spec.view,
            volume_DHW=phantom.volume_DHW,
            spacing_mm=(spec.spacing_mm, spec.spacing_mm),
            slice_spacing_mm=spec.slice_mm,
            lesions=tuple(_truth(lesion) for lesion in phantom.lesions),
        )


def _truth(lesion: Lesion) -> LesionTruth:
    details = {
        "radius_mm": lesion.radius_mm,
        "radii_zyx": list(lesion.radii_zyx),
        "contrast": lesion.contrast,
    }
    return LesionTruth(lesion.label, lesion.centre_zyx, lesion.box, details)
