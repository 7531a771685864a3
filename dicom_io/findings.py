"""What a model found, in the words the writers (`seg`, `sr`, `overlay`) take.

Frozen data only: no pixels of the source, no model, no file. Frame indices are 0-based positions in the source
instance *as stored* (DICOM frame number minus one), never the spatial order. Rows and columns are those of the
source image. A score is a model output in [0, 1]; it is not a probability of malignancy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.syntaxes import MAMMOGRAPHY_PRESENTATION

if TYPE_CHECKING:
    from dicom_io.dbt import MammogramImage

Label = Literal["benign", "malignant"]
LABELS: tuple[Label, Label] = ("benign", "malignant")


class FrameRef(NamedTuple):
    """The object that holds one frame of a source, and which of its frames that is: 0-based, None where it has no
    frames to number."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None


@dataclass(frozen=True)
class SourceRef:
    """A source image, as far as a writer needs it.

    `header` is the whole data set without pixels (`pydicom.dcmread(path, stop_before_pixels=True)`).
    `laterality` ("L", "R") and `view` ("CC", "MLO", ...) are the ones the reader settled on, which may correct the
    header; None where neither header nor image tells. `frame_count` counts the frames that were really decoded; it
    rules where the header's NumberOfFrames or per-frame items disagree.

    Of an image that came one object a slice, `slices` are their headers in the order of the stored frames, `header`
    that of the first; `frame_reference` then names the slice. `sop_instance_uid` is that of the first, too.
    """

    header: Dataset
    frame_count: int
    laterality: str | None = None
    view: str | None = None
    slices: tuple[Dataset, ...] = ()

    @classmethod
    def of(cls, image: MammogramImage) -> SourceRef:
        """The reference of an opened image: its data set, and side and view as the reader settled them."""
        return cls(
            image.dataset,
            image.number_of_frames,
            image.laterality,
            image.view,
            image.slice_headers,
        )

    @property
    def sop_instance_uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        return str(self.header.SOPClassUID)

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """SOP Class and Instance UIDs of the objects it consists of, in the order of the stored frames."""
        headers = self.slices or (self.header,)
        return tuple((str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in headers)

    @property
    def is_multi_frame(self) -> bool:
        """Whether its frames have numbers that a reference must give: several in one object."""
        if self.slices:
            return False
        return self.frame_count > 1 or "SharedFunctionalGroupsSequence" in self.header

    def frame_reference(self, frame: int) -> FrameRef:
        """How to refer to a stored frame, 0-based: its number is left out where the object is one frame."""
        if self.slices:
            return FrameRef(*self.instances[frame], None)
        number = frame if self.is_multi_frame else None
        return FrameRef(self.sop_class_uid, self.sop_instance_uid, number)

    @property
    def is_mammogram(self) -> bool:
        """Whether it is a 2D image For Presentation, full-field or synthesized."""
        return self.sop_class_uid == MAMMOGRAPHY_PRESENTATION

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.header.Rows), int(self.header.Columns)


@dataclass(frozen=True)
class Segment:
    """Pixels of one label in one image.

    `frames` maps a 0-based source frame index to a bool mask (H, W) in source rows and columns; frames without a
    True pixel need not be there. `max_score` is the highest score under the mask.
    """

    label: Label
    frames: Mapping[int, NDArray[np.bool_]]
    max_score: float


@dataclass(frozen=True)
class Region:
    """One suspicious region of one label, on consecutive frames.

    `first_frame` and `last_frame` are 0-based and inclusive. `centre_row`, `centre_col` are pixel centres counted
    from 0. `box` is (row0, col0, row1, col1), half-open, on the key frame.
    """

    label: Label
    first_frame: int
    last_frame: int
    key_frame: int
    centre_row: float
    centre_col: float
    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True)
class ImageFindings:
    """All that the model said about one image; both tuples are empty where it found nothing.

    `notes` are plain sentences for the report (a corrected laterality, a header that lies); no patient attribute.
    `levels` holds the scores pixel by pixel, for the writers that store them: per label uint8 (H, W) by 0-based
    source frame, 255 for a score of 1. Frames may be made when asked for (`seg_values.LevelFrames`).
    """

    source: SourceRef
    scores: Mapping[Label, float]
    segments: tuple[Segment, ...] = ()
    regions: tuple[Region, ...] = ()
    notes: tuple[str, ...] = ()
    levels: Mapping[Label, Mapping[int, NDArray[np.uint8]]] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentationRef:
    """A segmentation written for a source image, as far as the report needs it."""

    source_sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    segment_numbers: Mapping[Label, int]


@dataclass(frozen=True)
class KeyImageRef:
    """A picture written as a DICOM object for one frame of a source image (0-based), as far as a document needs it."""

    source_sop_instance_uid: str
    frame: int
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Excluded:
    """An instance of the study that the model did not read, and why (a plain sentence, no patient attribute).

    Without its series a report names it in words only, since references in a document go by series. `source` is the
    image itself, for the report's image library: of an image whose header can be read.
    """

    sop_instance_uid: str
    sop_class_uid: str
    reason: str
    series_instance_uid: str = ""
    source: SourceRef | None = None


@dataclass(frozen=True)
class Algorithm:
    """What computed the findings. `parameters` are shown in the report, name by name; `caveat` is a sentence about the
    weights that every result must carry, empty where there is none."""

    name: str
    version: str
    weights_sha256: str
    trained: bool
    parameters: Mapping[str, str] = field(default_factory=dict)
    caveat: str = ""


@dataclass(frozen=True)
class Equipment:
    """The device that wrote the objects (General Equipment and Contributing Equipment)."""

    manufacturer: str
    model_name: str
    software_version: str
    serial_number: str
    station_name: str
    institution_name: str = ""


@dataclass(frozen=True)
class DocumentRef:
    """An earlier document that a new one replaces (PS3.3 C.17.2, Predecessor Documents Sequence)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Reader:
    """A model, and the score in [0, 1] from which a region of its is reported."""

    algorithm: Algorithm
    operating_point: float


@dataclass(frozen=True)
class RunContext:
    """One run over one study. Every UID and date of the result follows from it, so a rebuild gives the same bytes.

    `run_id` is a UUID string; `created_at` is timezone-aware; `operating_point` is the score in [0, 1] from which a
    region is reported. `flat` is what reads mammograms, where that is another model than the one that reads the rest.
    """

    run_id: str
    created_at: datetime
    algorithm: Algorithm
    operating_point: float
    equipment: Equipment
    flat: Reader | None = None

    def reading(self, source: SourceRef) -> RunContext:
        """The run as the results of one image name it: with the model that read it, and no other."""
        if self.flat is None:
            return self
        return self._with(self.flat) if source.is_mammogram else replace(self, flat=None)

    def over(self, sources: Iterable[SourceRef]) -> RunContext:
        """The run as documents on these images name it: with the models that read one of them."""
        kinds = {source.is_mammogram for source in sources}
        if self.flat is None or kinds == {True, False}:
            return self
        return self._with(self.flat) if kinds == {True} else replace(self, flat=None)

    @property
    def readers(self) -> tuple[RunContext, ...]:
        """The run with each of its models alone."""
        alone = replace(self, flat=None)
        return (alone,) if self.flat is None else (alone, self._with(self.flat))

    def _with(self, reader: Reader) -> RunContext:
        algorithm, point = reader.algorithm, reader.operating_point
        return replace(self, algorithm=algorithm, operating_point=point, flat=None)
