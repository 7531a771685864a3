"""The one configuration of a 3D-GMIC model: frozen, checked when made, kept beside the weights."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gmic.errors import ConfigError

CLASSES = ("benign", "malignant")
"""Order of every class axis in this package."""

PARTS = ("all", "global")
"""What a model is made of: global and local module, or the global one alone (paper, VII-B, Table II)."""


@dataclass(frozen=True)
class GMIC3DConfig:
    """Shape and hyper-parameters of 3D-GMIC; the defaults are the published tomosynthesis model.

    Attributes:
        window_shape: Rows and columns of the window that preprocessing makes (pixels). The network
            itself takes any size of at least a patch.
        patch_size: Side of a square patch for the local network (binned pixels), at least 16.
        num_patches: K, the patches read by the local network.
        top_t_fraction: Cells pooled into `y_global`, as a fraction of ONE slice's cells, so 1.51
            means 151 % (paper, V-B.3). Clamped to the cells there are.
        slice_margin: zeta: a pick also clears its place in this many slices on either side.
        stem_channels: Channels after the first convolution of the global network.
        stage_channels: Channels of the global network's residual stages.
        stage_strides: Stride of each of these stages.
        blocks_per_stage: Residual blocks in each of these stages.
        norm_groups: Groups of every group normalisation (paper, V-B.1).
        attention_channels: L of equation 4.
        local_channels: Widths of the local network's four layers; the last is S of equation 4.
        binning: Side of the square of window pixels averaged into one pixel that the networks see.
            Only `patch_size` counts binned pixels; whatever the model gives out counts the window's.
        parts: One of `PARTS`. With "global" no patch is read and `y_final` is `y_global`; the local
            network and the attention are there, untrained and unused.
    """

    window_shape: tuple[int, int] = (2116, 1339)
    patch_size: int = 256
    num_patches: int = 12
    top_t_fraction: float = 1.51
    slice_margin: int = 10
    stem_channels: int = 16
    stage_channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    stage_strides: tuple[int, ...] = (1, 2, 2, 2, 2)
    blocks_per_stage: int = 2
    norm_groups: int = 8
    attention_channels: int = 128
    local_channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    binning: int = 1
    parts: str = "all"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: A value no model can have; names the field and the value seen.
        """
        for field in dataclasses.fields(self):  # numpy's numbers are as good as Python's
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        positive = ("num_patches", "stem_channels", "blocks_per_stage", "norm_groups")
        for name in (*positive, "attention_channels", "binning"):
            self._require(_is_int(getattr(self, name), 1), name, "a whole number above 0")
        self._require(_is_int(self.patch_size, 16), "patch_size", "a whole number from 16")
        self._require(_is_int(self.slice_margin, 0), "slice_margin", "a whole number from 0")
        self._require(_is_ints(self.window_shape, 2), "window_shape", "two whole numbers above 0")
        self._require(
            min(self.window_shape) >= self.patch_extent,
            "window_shape",
            f"at least patch_size * binning ({self.patch_extent}) on both sides",
        )
        self._require(_is_ints(self.local_channels, 4), "local_channels", "four whole numbers")
        self._require(
            _is_number(self.top_t_fraction) and 0 < self.top_t_fraction < math.inf,
            "top_t_fraction",
            "a finite number above 0",
        )
        self._require(self.parts in PARTS, "parts", f"one of {', '.join(PARTS)}")
        stages = len(self.stage_channels) if isinstance(self.stage_channels, tuple) else 0
        self._require(stages > 0, "stage_channels", "at least one stage")
        self._require(_is_ints(self.stage_channels, stages), "stage_channels", "all above 0")
        self._require(
            _is_ints(self.stage_strides, stages), "stage_strides", "one stride for each stage"
        )
        self._require(
            all(n % self.norm_groups == 0 for n in (self.stem_channels, *self.stage_channels)),
            "norm_groups",
            "a divisor of every number of channels",
        )

    @property
    def has_local_module(self) -> bool:
        """Whether patches are read."""
        return self.parts != "global"

    @property
    def patch_extent(self) -> int:
        """Side of a patch in window pixels."""
        return self.patch_size * self.binning

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values; `from_dict` gives the same configuration back."""
        values = dataclasses.asdict(self)
        if self.has_local_module:
            # Files and checkpoints from before there was a choice stay the same.
            del values["parts"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GMIC3DConfig:
        """Make a configuration from `to_dict`'s values; fields left out take their defaults.

        Raises:
            ConfigError: An unknown field, or a value no model can have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown configuration field {unknown[0]!r}; known: {sorted(known)}")
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)


def _plain(value: Any) -> Any:
    """The value as Python's own number, or as a tuple of such; anything else as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return tuple(_plain(one) for one in value) if isinstance(value, list | tuple) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_ints(values: object, length: int) -> bool:
    return (
        isinstance(values, tuple) and len(values) == length and all(_is_int(v, 1) for v in values)
    )
