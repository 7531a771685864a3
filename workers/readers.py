"""What reads the images of a run: one model, or one for tomosynthesis and another for mammograms. Pure but for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dicom_io.findings import SourceRef
from workers.predictor import ModelIdentity, Predictor


@dataclass(frozen=True)
class Readers:
    """`main` reads every image, or all but the mammograms where there is a `flat` for them."""

    main: Predictor
    flat: Predictor | None = None

    @property
    def flat_identity(self) -> ModelIdentity | None:
        """What the one for mammograms is called."""
        return None if self.flat is None else self.flat.identity

    def of(self, source: SourceRef) -> Predictor:
        """What reads an image."""
        return self.flat if self.flat is not None and source.is_mammogram else self.main

    def card(self) -> dict[str, Any]:
        """What the database keeps of them: the main one's, with what it `reads`; the other one's as `mammograms`."""
        card = self.main.identity.card()
        if self.flat is None:
            return {**card, "reads": "any"}
        flat = self.flat.identity.card()
        caveats = dict.fromkeys((card["caveat"], flat["caveat"]))
        return {
            **card,
            "reads": "dbt",
            "trained": card["trained"] and flat["trained"],
            "caveat": " ".join(filter(None, caveats)),
            "mammograms": {**flat, "reads": "2d"},
        }
