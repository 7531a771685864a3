"""A de-identified copy of a data set: DICOM files, labels.csv, manifest.json (PS3.15; see `dicom_io.deidentify`).

UIDs, patients and days are replaced by what follows from the node's secret and the content hash: the same export twice
gives the same files, two data sets cannot be joined by them. The way back lies under the node's home, mode 0600, and
never in the export. manifest.json is written last: a folder without it is not whole.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dicom_io.deidentify import METHOD, Disguise, burned_in, write_deidentified
from dicom_io.errors import DicomIoError
from node.blobs import BlobStore, sha256_of, sync_file, sync_folder
from node.config import Settings
from node.datasets import store
from node.datasets.secret import keyed, load_key, write_private
from node.db import Database
from node.errors import Conflict, DiskFull
from node.learning_models import Dataset, DatasetItem

RESEARCH_ONLY = "Research use only, not for clinical use."
_DAYS = 3650  # a patient's dates move back by 1 to so many days
_PATIENT_DIGITS = 16
_STRATA = ("manufacturer", "model", "site", "thickness_mm", "age")
_COLUMNS = (
    "file", "patient", "study_uid", "sop_uid", "laterality", "view", "split",
    "benign", "malignant", "birads", *_STRATA, "sha256",
)  # fmt: skip


@dataclass(frozen=True)
class HeldBack:
    """An image that is in the data set and not in the export; its UID is the replaced one."""

    sop_uid: str
    code: str
    reason: str


@dataclass(frozen=True)
class Exported:
    """What an export holds, and where the way back lies."""

    folder: Path
    images: int
    held_back: tuple[HeldBack, ...]
    key_file: Path


@dataclass
class _Masks:
    """Replacements of one export, made from its key; every UID that was asked for is remembered."""

    key: bytes
    uids: dict[str, str] = field(default_factory=dict)

    def uid(self, source: str) -> str:
        if source not in self.uids:
            self.uids[source] = f"2.25.{int(keyed(self.key, 'uid', source)[:32], 16)}"  # PS3.5 B.2
        return self.uids[source]

    def patient(self, digest: str) -> str:
        return f"P{keyed(self.key, 'patient', digest)[:_PATIENT_DIGITS]}"

    def days(self, digest: str) -> int:
        return -1 - int(keyed(self.key, "days", digest)[:8], 16) % _DAYS

    def disguise(self, item: DatasetItem) -> Disguise:
        return Disguise(self.patient(item.patient), self.days(item.patient), self.uid)


def export(
    db: Database, settings: Settings, name: str, folder: Path, unstated_ok: bool = False
) -> Exported:
    """Write a de-identified copy of a data set into an empty or new folder.

    An image that says it has writing burned into its pixels is held back, and so is one that does not say, unless
    `unstated_ok`: pixels are not looked at and not changed.

    Raises:
        NotFound: no such data set.
        Conflict: the folder holds something; the data set or a stored image is not what was frozen.
        DiskFull: less room than the images need.
    """
    blobs = BlobStore.of(settings)
    with db.reading() as session:
        dataset = store.find(session, name)
        store.verify(session, dataset)
        items = store.items(session, dataset.id)
    masks = _Masks(bytes.fromhex(keyed(load_key(settings.home), "export", dataset.content_hash)))
    _prepare(folder, blobs, items)
    rows: list[dict[str, Any]] = []
    held_back: list[HeldBack] = []
    for item in items:
        outcome = _export_image(blobs, item, masks, folder, unstated_ok)
        if isinstance(outcome, HeldBack):
            held_back.append(outcome)
        else:
            rows.append(outcome)
    key_file = _keep_way_back(settings.home, dataset, items, masks)
    _write(folder / "labels.csv", _csv(rows))
    _write(folder / "manifest.json", _manifest(dataset, rows, held_back, unstated_ok))
    sync_folder(folder)
    return Exported(folder, len(rows), tuple(held_back), key_file)


def _prepare(folder: Path, blobs: BlobStore, items: Sequence[DatasetItem]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict(f"folder {folder} is not empty; give a new one, or empty it")
    paths = [blobs.path(item.sha256) for item in items]
    needed = sum(path.stat().st_size for path in paths if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFull(
            f"{free // 2**20} MB left at {folder}, the export needs {needed // 2**20} MB; give another folder"
        )


def _export_image(
    blobs: BlobStore, item: DatasetItem, masks: _Masks, folder: Path, unstated_ok: bool
) -> dict[str, Any] | HeldBack:
    disguise = masks.disguise(item)
    uid = disguise.uid(item.sop_uid)
    try:
        source = blobs.fetch(item.sha256)
        if sha256_of(source) != item.sha256:
            return HeldBack(uid, "changed", "the stored bytes are not those that were frozen")
        annotated = burned_in(source)
        if annotated == "YES":
            return HeldBack(
                uid, "burned-in", "the image says that its pixels hold writing or a face"
            )
        if annotated != "NO" and not unstated_ok:
            return HeldBack(
                uid, "unstated", "the image does not say whether its pixels hold writing"
            )
        name = f"images/{disguise.patient}/{uid}.dcm"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_deidentified(source, target, disguise)
    except FileNotFoundError:
        return HeldBack(uid, "missing", "the image's bytes are not in the blob store any more")
    except DicomIoError as error:
        return HeldBack(uid, "unreadable", str(error))
    return _row(item, disguise, name, sha256_of(target))


def _row(item: DatasetItem, disguise: Disguise, name: str, sha256: str) -> dict[str, Any]:
    return {
        **{column: item.strata.get(column) for column in _STRATA},
        "file": name,
        "patient": disguise.patient,
        "study_uid": disguise.uid(item.study_uid),
        "sop_uid": disguise.uid(item.sop_uid),
        "laterality": item.laterality,
        "view": item.view,
        "split": item.split,
        "benign": int(item.benign),
        "malignant": int(item.malignant),
        "birads": item.birads,
        "sha256": sha256,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _manifest(
    dataset: Dataset,
    rows: Sequence[dict[str, Any]],
    held_back: Sequence[HeldBack],
    unstated_ok: bool,
) -> str:
    """No day, no name of a person, no UID of a source: the rule's range would give back what the dates hide."""
    document = {
        "notice": RESEARCH_ONLY,
        "data_set": dataset.name,
        "content_hash": dataset.content_hash,
        "rule": {
            name: dataset.rule[name] for name in ("kind", "window_days", "shares", "split_by")
        },
        "deidentification": METHOD,
        "software": f"tomonode {metadata.version('tomonode')}",
        "table": f"dicom-anonymizer {metadata.version('dicom-anonymizer')}",
        "images_without_a_word_on_burned_in_writing": unstated_ok,
        "images": dict(sorted(Counter(str(row["split"]) for row in rows).items())),
        "files": {row["file"]: row["sha256"] for row in rows},
        "held_back": [vars(one) for one in held_back],
    }
    return json.dumps(document, indent=1) + "\n"


def _keep_way_back(
    home: Path, dataset: Dataset, items: Sequence[DatasetItem], masks: _Masks
) -> Path:
    digests = sorted({item.patient for item in items})
    document: dict[str, Any] = {
        "data_set": dataset.name,
        "content_hash": dataset.content_hash,
        "patients": {
            masks.patient(one): {"digest": one, "days": masks.days(one)} for one in digests
        },
        "uids": {new: source for source, new in sorted(masks.uids.items())},
    }
    path = home / "secret" / f"export-{dataset.content_hash}.json"
    if path.exists():  # an earlier export may have held back other images than this one
        document["uids"] = json.loads(path.read_text())["uids"] | document["uids"]
    write_private(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    sync_file(path)
