"""Mammography CAD SR (PS3.3 A.35.5, PS3.16 TID 4000): what mammography workstations read besides the SR.

    Mammography CAD Report
    ├── language
    ├── Image Library              every image read; of tomosynthesis also each frame that carries a mark
    ├── CAD Processing and Findings Summary
    │   ├── what a reader must know, the result in words, the scores of every image
    │   └── an Individual Impression for each image with a region, and in it
    │       └── for each region    Selected region: centre, box, score, algorithm, "presentation optional"
    ├── Summary of Detections      the images read, and those left out
    └── Summary of Analyses        not attempted

A region is a "Selected region", the one finding of the standard's list that claims no kind of lesion. A score is a
calculated value with a private name: "Certainty of Finding" and "Probability of cancer" are percentages that an
output without calibration does not give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import MammographyCADSRStorage

from dicom_io import cad_codes as cad
from dicom_io import result_codes as names
from dicom_io.cad_library import Library
from dicom_io.findings import (
    LABELS,
    DocumentRef,
    Excluded,
    ImageFindings,
    Region,
    RunContext,
    SourceRef,
)
from dicom_io.modules import contributing_equipment, start_object
from dicom_io.sr_content import left_out, overall, result_sentence, statements
from dicom_io.sr_document import (
    Reference,
    add_evidence,
    add_report,
    check_study,
    image_references,
)
from dicom_io.sr_groups import check_frames, checked_score, image_sentence
from dicom_io.syntaxes import (
    BREAST_PROJECTION_PRESENTATION,
    BREAST_PROJECTION_PROCESSING,
    BREAST_TOMOSYNTHESIS,
    MAMMOGRAPHY_PRESENTATION,
    MAMMOGRAPHY_PROCESSING,
)
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9002
_LIBRARY_PLACE = 2  # among the root's children, after the language
_BREAST_IMAGES = frozenset(
    {
        BREAST_TOMOSYNTHESIS,
        MAMMOGRAPHY_PRESENTATION,
        MAMMOGRAPHY_PROCESSING,
        BREAST_PROJECTION_PRESENTATION,
        BREAST_PROJECTION_PROCESSING,
    }
)


def build_cad_sr(
    study: Dataset,
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    run: RunContext,
    *,
    predecessor: DocumentRef | None = None,
) -> Dataset | None:
    """The CAD report of one run over one study; None where no image was read, since its library must hold one.

    Args:
        study: header of any instance of the study; patient and study attributes are copied from it.
        findings: every image that was read, those without a region included.
        excluded: every instance that was not read, and why. An image whose series is known is a failed detection,
            the others are named in words.
        run: the run; the same run gives the same bytes.
        predecessor: the CAD report of an earlier run that this one replaces.

    Raises InvalidFindings where an image belongs to another study, a score is no number in [0, 1], or a region lies
    on a frame that is not there.
    """
    check_study(study, findings)
    if not findings:
        return None
    report = start_object(
        study,
        run,
        sop_class_uid=MammographyCADSRStorage,
        sop_instance_uid=derive_uid(run.run_id, "cad-sr"),
        series_instance_uid=derive_uid(run.run_id, "cad-sr-series"),
    )
    report.ContributingEquipmentSequence = contributing_equipment(
        [image.source.header for image in findings], run
    )
    report.CodingSchemeIdentificationSequence = [names.private_scheme_item()]
    add_report(report, "AI marks (CAD)", _SERIES_NUMBER, run, predecessor)
    failed = _failed(excluded)
    add_evidence(report, [*image_references(findings), *(_reference(item) for item in failed)])
    report.update(_tree(findings, excluded, failed, run))
    return report


def _failed(excluded: Sequence[Excluded]) -> list[Excluded]:
    """Those that a report can refer to: images of a breast, in a series that is known (evidence goes by series)."""
    return [e for e in excluded if e.series_instance_uid and e.sop_class_uid in _BREAST_IMAGES]


def _reference(item: Excluded) -> Reference:
    return item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid


def _tree(
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    failed: Sequence[Excluded],
    run: RunContext,
) -> Dataset:
    for image in findings:
        for region in image.regions:
            check_frames(region, image.source)
    library = Library.of(findings, _LIBRARY_PLACE)
    root = sr.ContainerContentItem(cad.REPORT, template_id="4000")
    children = [
        cad.code(cad.LANGUAGE, cad.ENGLISH, cad.MODIFIES),
        cad.container(cad.IMAGE_LIBRARY, cad.CONTAINS, library.entries),
        _summary(findings, excluded, library, run),
        _detections(findings, failed, library, run),
        cad.code(cad.ANALYSES, cad.NOT_ATTEMPTED, cad.CONTAINS),
    ]
    tree: Dataset = cad.with_children(root, children)
    return tree


def _summary(
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    library: Library,
    run: RunContext,
) -> Any:
    """TID 4001 with the overall impression (TID 4002): the notices first, since readers show this text."""
    words = [
        *statements(run),
        result_sentence(findings, excluded),
        *(_image_words(image, run.reading(image.source)) for image in findings),
        *(f"Left out: {left_out(item)}" for item in excluded),
    ]
    return cad.code(
        names.PROCESSING_SUMMARY,
        overall(findings, excluded),
        cad.CONTAINS,
        [
            cad.text(cad.IMPRESSION, "\r\n".join(words), cad.PROPERTY),
            *(item for one in run.readers for item in _algorithm(one, in_full=True)),
            *(score for image in findings for score in _image_scores(image)),
            *(
                _impression(image, library, run.reading(image.source))
                for image in findings
                if image.regions
            ),
        ],
    )


def _image_words(image: ImageFindings, run: RunContext) -> str:
    title = names.image_title(image.source.laterality, image.source.view)
    return " ".join([f"{title}: {image_sentence(image, run)}", *image.notes])


def _image_scores(image: ImageFindings) -> Iterator[Any]:
    """Both scores of an image (TID 4002 row 12), with its side; the description says which image."""
    source = image.source
    title = names.image_title(source.laterality, source.view)
    side = names.BREASTS.get(source.laterality or "")
    for label in LABELS:
        yield _score(
            names.IMAGE_SCORES[label],
            image.scores[label],
            f"{title}, whole image {source.sop_instance_uid}. {names.SCORE_NOTICE}",
            [cad.code(cad.LATERALITY, side, cad.MODIFIES)] if side else [],
        )


def _score(name: Code, value: float, description: str, modifiers: Sequence[Any] = ()) -> Any:
    """A calculated value with its derivation (TID 4002 rows 12 to 15, TID 4006 rows 22 to 24)."""
    return cad.number(
        name,
        checked_score(name, value),
        cad.NO_UNITS,
        cad.PROPERTY,
        [
            *modifiers,
            cad.code(cad.DERIVATION, cad.UNSPECIFIED_METHOD, cad.MODIFIES),
            cad.text(cad.CALCULATION, description, cad.INFERRED),
        ],
    )


def _algorithm(run: RunContext, *, in_full: bool) -> list[Any]:
    """TID 4019: every parameter once, the weights' hash everywhere."""
    given = names.algorithm_parameters(run)
    shown = given if in_full else {name: given[name] for name in ("weights_sha256", "weights")}
    return [
        cad.text(cad.ALGORITHM_NAME, run.algorithm.name, cad.PROPERTY),
        cad.text(cad.ALGORITHM_VERSION, run.algorithm.version, cad.PROPERTY),
        *(
            cad.text(cad.ALGORITHM_PARAMETERS, f"{name} = {value}", cad.PROPERTY)
            for name, value in shown.items()
        ),
    ]


def _impression(image: ImageFindings, library: Library, run: RunContext) -> Any:
    """TID 4003: one image's regions."""
    return cad.container(
        cad.INDIVIDUAL_IMPRESSION,
        cad.INFERRED,
        [_optional(), *(_finding(region, image.source, library, run) for region in image.regions)],
    )


def _optional() -> Any:
    return cad.code(cad.RENDERING_INTENT, cad.OPTIONAL, cad.MODIFIES)


def _finding(region: Region, source: SourceRef, library: Library, run: RunContext) -> Any:
    """TID 4006 with geometry (TID 4021) on the key frame, in stored rows and columns."""
    place = library.place(source, region.key_frame)
    row0, col0, row1, col1 = region.box
    corners = [(col0, row0), (col1, row0), (col1, row1), (col0, row1), (col0, row0)]
    # Points count from the corner of the first pixel (PS3.3 C.18.6.1.2), centres of regions from its centre.
    centre = (region.centre_col + 0.5, region.centre_row + 0.5)
    return cad.code(
        cad.FINDING,
        cad.SELECTED_REGION,
        cad.CONTAINS,
        [
            _optional(),
            *_algorithm(run, in_full=False),
            cad.shape(cad.CENTRE, [centre], place),
            cad.shape(cad.OUTLINE, corners, place),
            cad.text(cad.REGION_DESCRIPTION, _description(region, source), cad.PROPERTY),
            _score(names.REGION_SCORE, region.score, names.SCORE_NOTICE),
        ],
    )


def _description(region: Region, source: SourceRef) -> str:
    slices = f", key slice {region.key_frame + 1} of {source.frame_count}" if source.slices else ""
    frames = (
        f", key frame {region.key_frame + 1} of frames {region.first_frame + 1} to {region.last_frame + 1}"
        if source.is_multi_frame
        else slices
    )
    return f"{names.STYLES[region.label].title} (model output, not a diagnosis){frames}. {names.NOTICE}"


def _detections(
    findings: Sequence[ImageFindings],
    failed: Sequence[Excluded],
    library: Library,
    run: RunContext,
) -> Any:
    """TID 4015: the images that were read, and those that were not."""
    done = []
    for one in run.readers:
        sources = [i.source for i in findings if run.reading(i.source) == one]
        places = [place for source in sources for place in library.whole(source)]
        done.append(_detection([cad.by_reference(p, cad.PROPERTY) for p in places], one))
    performed = [cad.container(cad.SUCCESSFUL, cad.INFERRED, done)]
    if failed:
        unread = [
            cad.image(e.sop_class_uid, e.sop_instance_uid, None, cad.PROPERTY) for e in failed
        ]
        performed.append(cad.container(cad.FAILED, cad.INFERRED, [_detection(unread, run)]))
    status = cad.PARTIALLY_SUCCEEDED if failed else cad.SUCCEEDED
    return cad.code(cad.DETECTIONS, status, cad.CONTAINS, performed)


def _detection(images: Sequence[Any], run: RunContext) -> Any:
    """TID 4017."""
    return cad.code(
        cad.DETECTION,
        cad.SELECTED_REGION,
        cad.CONTAINS,
        [*_algorithm(run, in_full=False), *images],
    )
