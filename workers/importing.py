"""Weights from outside into the registry: a file of ours as it is, published checkpoints converted to safetensors.

Published checkpoints are pickles and are read without running code (`gmic.published`). Several files are an ensemble:
one version, one file in the blob store (`gmic.bundle`), whose scores and saliency are the means of its members'.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gmic import bundle
from gmic.config import GMIC3DConfig
from gmic.weights import WeightsInfo
from node.blobs import BlobStore, sha256_of
from node.config import Settings
from node.db import Database
from node.errors import ConfigError, Conflict
from node.learning_models import ModelVersion
from node.model_version import UNTRAINED, model_version
from workers.models import register_file

RELEASED_TOP_T = (
    1.5108578607685,
    2.0584660301930686,
    1.1336909878403076,
    1.5651680987233705,
    2.293890202354881,
)
"""`percent_t` of the five released models, in their order: a fraction of one slice's cells."""
RELEASED_PATCHES = (12, 12, 8, 16, 8)
"""K of the five."""
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Wanted:
    """What to import.

    Attributes:
        files: One file of ours, or one or more published checkpoints.
        name: What reports will call the version; None: as the file's own card says.
        licence: Under which the weights may be used.
        top_t: Of published checkpoints, one for all or one a file; none: the released values where there are five
            files, the paper's for one.
        patches: K, likewise.
        threshold: Saliency from which a cell of published weights counts as part of a finding.
    """

    files: Sequence[Path]
    name: str | None
    licence: str
    top_t: Sequence[float] = ()
    patches: Sequence[int] = ()
    threshold: float = 0.5


def import_files(db: Database, settings: Settings, wanted: Wanted, by: str) -> ModelVersion:
    """Put weights into the blob store and the registry, as a candidate; those that are there already stay.

    Raises:
        ConfigError: options that do not fit the files.
        Conflict: the name is taken by other weights.
        WeightsError: a file that cannot be read or does not fit.
        DiskFull: no room.
    """
    blobs = BlobStore.of(settings)
    blobs.require_room(2 * sum(file.stat().st_size for file in wanted.files) + _SPARE_BYTES)
    ours = [bundle.is_ours(file) for file in wanted.files]
    if ours == [True]:
        if wanted.top_t or wanted.patches:
            raise ConfigError(
                f"{wanted.files[0].name} has a card with its own values; leave out --percent-t and --num-patches"
            )
        return _register(db, blobs, settings, wanted.files[0], wanted, by)
    if any(ours):
        raise ConfigError(
            "an ensemble is imported from published checkpoints; give one file of ours"
        )
    if wanted.name is None:
        raise ConfigError("published checkpoints have no card that names them; give --name")
    with tempfile.TemporaryDirectory(dir=blobs.spool, prefix="import-") as folder:
        file = Path(folder) / "weights.safetensors"
        models = bundle.from_published(wanted.files, configurations(wanted))
        bundle.save(models, file, _card(wanted, wanted.name, models[0].config))
        return _register(db, blobs, settings, file, wanted, by)


def configurations(wanted: Wanted) -> list[GMIC3DConfig]:
    """The configuration of each published checkpoint.

    Raises:
        ConfigError: another number of values than files, or a value no model can have.
    """
    count = len(wanted.files)
    plain, released = GMIC3DConfig(), count == len(RELEASED_PATCHES)
    if count > 1 and not released and not (wanted.top_t and wanted.patches):
        raise ConfigError(
            f"{count} files are not the five of the released ensemble; give --percent-t and --num-patches for each"
        )
    top_t = _each(wanted.top_t, RELEASED_TOP_T if released else (plain.top_t_fraction,), count)
    patches = _each(wanted.patches, RELEASED_PATCHES if released else (plain.num_patches,), count)
    return [
        GMIC3DConfig(top_t_fraction=float(t), num_patches=int(k))
        for t, k in zip(top_t, patches, strict=True)
    ]


def _each(given: Sequence[float], default: Sequence[float], count: int) -> Sequence[float]:
    values = given or default
    if len(values) not in (1, count):
        raise ConfigError(
            f"{len(values)} values for {count} files; give one for all, or one a file"
        )
    return list(values) * count if len(values) == 1 else values


def _card(wanted: Wanted, name: str, config: GMIC3DConfig) -> WeightsInfo:
    digests = ", ".join(sha256_of(file)[:12] for file in wanted.files)
    several = f"{len(wanted.files)} published checkpoints, an ensemble"
    return WeightsInfo(
        name=name,
        version="1",
        sha256="",
        trained=True,
        description=(
            f"Converted from {several if len(wanted.files) > 1 else 'a published checkpoint'} (sha256 {digests}). "
            "What it learned from is not known here. Research use only, not for clinical use."
        ),
        segment_threshold=wanted.threshold,
        config=config,
    )


def _register(
    db: Database, blobs: BlobStore, settings: Settings, file: Path, wanted: Wanted, by: str
) -> ModelVersion:
    more = {} if wanted.name is None else {"version": wanted.name}
    if wanted.name is not None:
        _require_free(settings, wanted.name, sha256_of(file))
    return register_file(db, blobs, file, by, wanted.licence, **more)


def _require_free(settings: Settings, name: str, digest: str) -> None:
    """A name that runs know already keeps its meaning."""
    configured = settings.weights
    same = configured is not None and sha256_of(configured) == digest
    if name == UNTRAINED or (name == model_version(settings) and not same):
        raise Conflict(
            f"model {name!r} is what the configured weights are called; give another name"
        )
