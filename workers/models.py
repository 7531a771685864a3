"""Models by the name of their version: from the registry's blobs, verified by digest, or from the node's configuration.

A process holds two models at most, the one that answers, and one that reads beside it in shadow; and a third where one
is configured for mammograms alone.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from gmic import breast, bundle
from gmic.bundle import Bundle
from node import log, registry
from node.blobs import BlobStore, sha256_of
from node.config import Settings
from node.db import Database, now
from node.errors import NotFound
from node.learning_models import ModelVersion
from node.model_version import model_version
from node.registry import Facts
from workers.errors import UnknownModel, WeightsGone
from workers.predictor import ALGORITHM, Predictor
from workers.readers import Readers

CODE_VERSION = metadata.version("tomonode")


class Models:
    """The models of one process. Not for several threads."""

    def __init__(self, db: Database, blobs: BlobStore, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._settings = settings
        self._held: dict[bool, Predictor] = {}
        self._flat: Predictor | None = None

    def readers(self, version: str, *, shadow: bool = False) -> Readers:
        """The model of a version, and the one that is configured for mammograms, if one is.

        Raises: see `get`; WeightsError, ConfigError of the configured one.
        """
        main = self.get(version, shadow=shadow)
        if self._settings.weights_2d is not None and self._flat is None:
            self._flat = load_flat(self._settings)
        return Readers(main, self._flat)

    def get(self, version: str, *, shadow: bool = False) -> Predictor:
        """The model of a version, loaded when it is first asked for.

        Args:
            version: As runs name it.
            shadow: Whose place it takes: that of the shadow model, or of the one that answers.

        Raises:
            UnknownModel: neither the registry nor the configuration knows the version.
            WeightsGone: its weights are not in the blob store, or are damaged.
            WeightsError, DeviceMissing, DeviceMemoryError: it cannot be loaded.
            ConfigError: the configured engine cannot run here.
        """
        for held in self._held.values():
            if held.identity.version == version:
                return held
        self._held.pop(shadow, None)  # before another takes its room
        engine = self._settings.engine
        loaded = load_version(self._db, self._blobs, self._settings, version, engine)
        log.get().info("model loaded", model=version, device=loaded.identity.device)
        self._held[shadow] = loaded
        return loaded


def load_version(
    db: Database,
    blobs: BlobStore,
    settings: Settings,
    version: str,
    engine: Literal["exact", "bfloat16"] = "exact",
) -> Predictor:
    """A version's model: of the registry, or the configured one if that is its name. Errors: see `Models.get`.

    The engine is not the configured one unless it is given: versions are measured by the exact one, on every host, and
    what they said is kept by weights and image alone (`workers.looks`).
    """
    settings = settings.model_copy(update={"engine": engine})
    with db.reading() as session:
        try:
            row = registry.find(session, version)
        except NotFound:
            row = None
    configured = model_version(settings) if row is None else ""
    if row is None and version != configured:
        raise UnknownModel(
            f"model {version!r} is neither in the registry nor configured here ({configured}); import it with"
            " `tomonode model import`, or retry the study to queue it for the present model"
        )
    if row is None:
        return Predictor.load(settings)
    return Predictor.of(verified(blobs, version, row.sha256), version, settings)


def load_flat(settings: Settings) -> Predictor | None:
    """The model that is configured for mammograms, with the operating point of its own weights; None for none."""
    if settings.weights_2d is None:
        return None
    own = {"weights": settings.weights_2d, "segment_threshold": None}
    return Predictor.load(settings.model_copy(update=own))


def verified(blobs: BlobStore, version: str, sha256: str) -> Bundle:
    """Read a version's weights, after their bytes were found to be what the registry says.

    Raises:
        WeightsGone: they are not there, or are other bytes.
        WeightsError: they are what was registered, and no weights.
    """
    require(blobs, version, sha256)
    return bundle.load(blobs.fetch(sha256))


def require(blobs: BlobStore, version: str, sha256: str) -> None:
    """Raises WeightsGone unless the blob store has a version's weights, unchanged."""
    try:
        found = sha256_of(blobs.fetch(sha256))
    except FileNotFoundError:
        raise WeightsGone(
            f"weights of model {version!r} (sha256 {sha256[:12]}) are not in the blob store; import the file again"
        ) from None
    if found != sha256:
        raise WeightsGone(
            f"weights of model {version!r} are damaged in the blob store (sha256 {found[:12]}, not {sha256[:12]});"
            " import the file again"
        )


def keep(blobs: BlobStore, content: bytes, sha256: str) -> None:
    """Put weights into the blob store; a damaged blob of theirs gives way.

    Raises:
        DiskFull: no room.
    """
    path = blobs.path(sha256)
    if path.exists() and sha256_of(path) != sha256:
        path.unlink()
    blobs.write(content)


def describe(found: Bundle, size_bytes: int, version: str, licence: str, **more: Any) -> Facts:
    """What the registry keeps of a weights file that was read.

    Args:
        found: The models and their card; `info.sha256` is the file's.
        size_bytes: Of the file.
        version: What reports will call it.
        licence: Under which the weights may be used.
        **more: Other fields of `Facts`: `dataset_id`, `training_run_id`, `metrics`, `description`, ...
    """
    window = list(found.info.config.window_shape)
    facts: dict[str, Any] = {
        "version": version,
        "sha256": found.info.sha256,
        "size_bytes": size_bytes,
        "architecture": {
            "algorithm": ALGORITHM,
            "members": [config.to_dict() for config in found.configs],
        },
        "preprocessing": {
            "window_shape": window,
            "crop_threshold": breast.THRESHOLD,
            "crop_erosions": breast.EROSIONS,
            "crop_buffer_px": breast.BUFFER,
            "standardised": "the whole window at once: mean 0, standard deviation 1",
        },
        "operating_points": {"segment": found.info.segment_threshold},
        "trained": found.info.trained,
        "description": found.info.description,
        "licence": licence,
        "code_version": CODE_VERSION,
    }
    return Facts(**{**facts, **more})


def register_file(
    db: Database, blobs: BlobStore, path: Path, by: str, licence: str, **more: Any
) -> ModelVersion:
    """Put a weights file of ours into the blob store and the registry, by default under its card's name and version.

    Args:
        db: Of the node.
        blobs: Of the node.
        path: A file that `gmic.weights.save` or `gmic.bundle.save` wrote.
        by: Who does it.
        licence: Under which the weights may be used.
        **more: Fields of `Facts`, see `describe`.

    Raises:
        WeightsError: it is no such file.
        Conflict: the name is taken by other weights.
        DiskFull: no room.
    """
    found, content = bundle.load(path), path.read_bytes()
    version = more.pop("version", f"{found.info.name}-{found.info.version}")
    facts = describe(found, len(content), version, licence, **more)
    with db.reading() as session:
        registry.require_free(session, facts.version, facts.sha256)
    keep(blobs, content, facts.sha256)
    with db.transaction() as session:
        return registry.register(session, facts, by, now(session))
