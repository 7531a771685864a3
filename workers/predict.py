"""The model on files, without a node: result objects, pictures and a summary into a folder."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dicom_io.errors import DicomIoError
from dicom_io.header import InstanceHeader, read_header
from dicom_io.recognise import Kind, kind_of
from node.blobs import sha256_of
from node.config import Settings
from node.results import USUAL
from workers.errors import NothingReadable
from workers.models import load_flat
from workers.pipeline import Analysis, analyse_study, run_context
from workers.predictor import Predictor
from workers.readers import Readers
from workers.results import Order, ResultFile
from workers.volumes import Source, Stopwatch

NOTICE = "research use only, not for clinical use"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "tomonode:predict")

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path
    header: InstanceHeader


def predict_files(
    paths: Iterable[Path],
    out_dir: Path,
    settings: Settings,
    say: Say = lambda _line: None,
    created_at: datetime | None = None,
    kinds: tuple[str, ...] = USUAL,
) -> dict[str, Any]:
    """Read files, or all files below folders, study by study; write `out_dir`/study-UID/* and `out_dir`/summary.json.

    The run of a study is named by its input files, the model and `created_at` (by default when the newest of its input
    files was changed), and everything written follows from the run: the same files give the same bytes.

    Args:
        paths: files and folders; what is no DICOM is reported and passed over.
        out_dir: made if it is not there; files of the same name are replaced.
        settings: weights, device, threads, operating point.
        say: gets a line for each step, for people.
        created_at: timezone-aware date of the results.
        kinds: what to make besides SEG and SR (`node.results`).

    Returns:
        What `summary.json` holds: `model`, `studies` (scores, regions, left out, files, seconds), `skipped`.

    Raises:
        NothingReadable: none of the files is DICOM.
        WeightsError, ConfigError, DeviceMemoryError: of the model.
        OSError: `out_dir` cannot be written.
    """
    studies, skipped = _grouped(_files(paths), say)
    if not studies:
        why = f" ({skipped[0]['path']}: {skipped[0]['reason']})" if len(skipped) == 1 else ""
        raise NothingReadable(
            f"none of {len(skipped)} files is DICOM{why}; give DICOM files or a folder of them"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    readers = Readers(Predictor.load(settings), load_flat(settings))
    summary: dict[str, Any] = {
        "notice": NOTICE,
        "model": readers.card(),
        "studies": [
            _study(uid, files, out_dir, readers, settings, say, created_at, Order(kinds))
            for uid, files in sorted(studies.items())
        ],
        "skipped": skipped,
    }
    _write_json(out_dir / "summary.json", summary)
    return summary


def _files(paths: Iterable[Path]) -> list[Path]:
    """Every file once, folders searched through, in the order of their names."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found.update((p.resolve(), p) for p in inside)
    return list(found.values())


def _grouped(
    paths: Sequence[Path], say: Say
) -> tuple[dict[str, list[_File]], list[dict[str, str]]]:
    studies: dict[str, dict[str, _File]] = {}
    skipped = []
    for path in paths:
        try:
            header = read_header(path)
        except (DicomIoError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            skipped.append({"path": str(path), "reason": reason})
            say(f"skipped   {path}: {reason}")
            continue
        instances = studies.setdefault(header.study_instance_uid, {})
        known = instances.setdefault(header.sop_instance_uid, _File(path, header))
        if known.path != path:
            reason = f"same SOP Instance UID as {known.path}"
            skipped.append({"path": str(path), "reason": reason})
            say(f"skipped   {path}: {reason}")
    ordered = {uid: [found[sop] for sop in sorted(found)] for uid, found in studies.items()}
    return ordered, skipped


def _study(
    study_uid: str,
    files: Sequence[_File],
    out_dir: Path,
    readers: Readers,
    settings: Settings,
    say: Say,
    created_at: datetime | None,
    order: Order,
) -> dict[str, Any]:
    folder = out_dir / f"study-{study_uid}"  # a prefix, for a malformed UID may be ".."
    folder.mkdir(exist_ok=True)
    created = created_at or _newest(files)
    run = run_context(readers, _run_id(files, readers, created), created, settings.ae_title)
    say(f"study     {study_uid}: {len(files)} files")
    written: list[dict[str, Any]] = []

    def emit(file: ResultFile) -> None:
        """Write a file and note it."""
        path = folder / file.name
        file.write(path)
        written.append(
            {
                "kind": file.kind,
                "path": str(path.relative_to(out_dir)),
                "source": file.source_sop_uid,
            }
        )
        say(f"wrote     {path}")

    sources = _sources(files)
    watch = Stopwatch()
    images = analyse_study(sources, run, Analysis(readers, emit, lambda: None, watch, order))
    names = {f.header.sop_instance_uid: str(f.path) for f in files}
    for image in images:
        if image.excluded_reason:
            say(f"left out  {names[image.sop_uid]}: {image.excluded_reason}")
    return {
        "study_uid": study_uid,
        "run_id": run.run_id,
        "created_at": created.isoformat(),
        "images": [
            {
                "path": names[i.sop_uid],
                **dataclasses.asdict(i),
                "regions": list(i.regions),
                "notes": list(i.notes),
            }
            for i in images
        ],
        "files": written,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()},
    }


def _sources(files: Sequence[_File]) -> list[Source]:
    """An image a file; the slices of a volume that came one a file are one image, in the place of the first."""
    images: dict[str, list[_File]] = {}
    for one in files:
        head = one.header
        sliced = kind_of(head) is Kind.TOMO_SLICE
        volume = head.series_instance_uid if sliced else head.sop_instance_uid
        images.setdefault(volume, []).append(one)
    return [
        Source(
            partial(Path, first.path),
            first.header.sop_instance_uid,
            first.header.sop_class_uid,
            tuple(partial(Path, each.path) for each in (first, *others))
            if kind_of(first.header) is Kind.TOMO_SLICE
            else (),
        )
        for first, *others in images.values()
    ]


def _newest(files: Sequence[_File]) -> datetime:
    """When the newest of the files was changed, in whole seconds."""
    return datetime.fromtimestamp(int(max(f.path.stat().st_mtime for f in files)), UTC)


def _run_id(files: Sequence[_File], readers: Readers, created_at: datetime) -> str:
    identity, flat = readers.main.identity, readers.flat_identity
    parts = [f"{f.header.sop_instance_uid}={sha256_of(f.path)}" for f in files]
    parts += [identity.version, identity.weights_sha256, repr(identity.operating_point)]
    if (
        identity.engine != "exact"
    ):  # runs of the exact one keep the names they had before there were two
        parts.append(identity.engine)
    if flat is not None:
        parts += [flat.version, flat.weights_sha256, repr(flat.operating_point)]
    parts.append(created_at.isoformat())
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
