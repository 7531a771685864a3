"""What can go wrong in `gmic`. It says what is wrong and never whether to try again.

    GmicError
    ├── ConfigError          a configuration that describes no model
    ├── InputError           an image the model or the preprocessing cannot take
    │   └── NoBreastError    no breast was found in the image
    ├── WeightsError         a weights file or state dict that does not fit
    └── DeviceMemoryError    the device ran out of memory while computing

The first three depend on their input alone: the same call fails again. `DeviceMemoryError` depends
on what else the machine is doing. Each class is also the nearest built-in, so a script that knows
nothing of this tree still catches `ValueError` or `MemoryError`.
"""

from __future__ import annotations


class GmicError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(GmicError, ValueError):
    """A configuration that describes no model."""


class InputError(GmicError, ValueError):
    """An image the model or the preprocessing cannot take."""


class NoBreastError(InputError):
    """No breast was found in the image."""


class WeightsError(GmicError, ValueError):
    """A weights file or state dict that does not fit the model, is damaged or is foreign."""


class DeviceMemoryError(GmicError, MemoryError):
    """The device ran out of memory while computing."""
