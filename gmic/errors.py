"""What can go wrong in `gmic`. It says what is wrong and never whether to try again.

    GmicError
    ├── ConfigError          a configuration that describes no model
    ├── InputError           an image the model or the preprocessing cannot take
    │   ├── NoBreastError    no breast was found in the image
    │   └── DataError        a set of images for training or evaluation that cannot be used
    ├── WeightsError         a weights file or state dict that does not fit
    ├── CheckpointError      a checkpoint that is damaged, foreign or of another training
    ├── TrainingError        a training that cannot go on: its folder is in use, a process was lost
    │   └── DivergedError    its loss, gradients or scores are no longer numbers
    ├── Interrupted          whoever watches a training ended it; it can be resumed
    └── DeviceMemoryError    the device ran out of memory while computing

`TrainingError` and `DeviceMemoryError` depend on what else is going on; all others, `DivergedError`
too, depend on their input alone: the same call fails again. Each class is also the nearest
built-in, so a script that knows nothing of this tree still catches `ValueError` or `MemoryError`.
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


class DataError(InputError):
    """A set of images for training or evaluation that cannot be used; names the row or file."""


class WeightsError(GmicError, ValueError):
    """A weights file or state dict that does not fit the model, is damaged or is foreign."""


class CheckpointError(GmicError, ValueError):
    """A checkpoint that is damaged, foreign or of another training."""


class TrainingError(GmicError, RuntimeError):
    """A training that cannot go on: another holds its folder, or one of its processes is lost."""


class DivergedError(TrainingError):
    """A training whose loss, gradients or scores are no longer numbers."""


class Interrupted(GmicError):
    """Raised by who watches a training, to end it where it stands: the loop keeps a checkpoint first."""


class DeviceMemoryError(GmicError, MemoryError):
    """The device ran out of memory while computing."""
