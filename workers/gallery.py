"""Pictures of single images for an evaluation's page: a version's saliency over slices, and what readers drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError
from gmic.errors import InputError
from gmic.evaluate.found import to_window
from gmic.evaluate.pictures import Reading as Seen
from gmic.evaluate.pictures import saliency_sheet
from gmic.evaluate.report import Picture
from gmic.preprocess import preprocess
from node.learning_models import DatasetItem
from workers.lesions import Lesions, volume_box
from workers.looks import Look
from workers.scoring import Contender, Reading

WORST = 4
"""Cases shown of each kind."""
_HEIGHT, _SLICES = 200, 3


@dataclass(frozen=True)
class Painter:
    """Draws images of a test split as one version sees them."""

    contender: Contender
    reading: Reading
    looks: Mapping[str, Look]
    lesions: Lesions

    def of(self, items: Sequence[DatasetItem]) -> Picture:
        """Gives the picture of an image by its SOP Instance UID, made once; None where it can no longer be read.

        The image is decoded again, and read again where nobody kept its saliency.

        Raises, when it is asked: DeviceMemoryError, WeightsGone, WeightsError, and what `reading.check` raises.
        """
        by_uid = {item.sop_uid: item for item in items}

        @cache
        def draw(uid: str) -> Image.Image | None:
            return self._draw(by_uid[uid])

        return draw

    def _draw(self, item: DatasetItem) -> Image.Image | None:
        self.reading.check()
        look, cut = self.looks[item.sop_uid], self.contender
        try:
            image = open_image(self.reading.path_of(item.sha256))
            _, height, width = look.transform.window_shape
            window_DHW, _ = preprocess(
                image.read_volume(),
                image.laterality,
                image.view_family,
                window_shape=(height, width),
            )
            saliency_CDhw = self.reading.cache.saliency(cut.weights_sha256, item.sha256)
            if saliency_CDhw is None:
                saliency_CDhw = cut.predictor.predict(window_DHW, self.reading.check).saliency_CDhw
                self.reading.cache.put_saliency(cut.weights_sha256, item.sha256, saliency_CDhw)
        except (DicomIoError, InputError, FileNotFoundError):
            return None
        drawn = tuple(
            (lesion.label, to_window(volume_box(lesion, look), look.transform))
            for lesion in self.lesions.get(item.sop_uid, ())
        )
        title = f"{cut.version}, {image.laterality} {image.view}"
        seen = Seen(window_DHW, saliency_CDhw, look.field, lesions=drawn, title=title)
        return saliency_sheet(seen, height=_HEIGHT, most=_SLICES)
