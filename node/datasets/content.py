"""The content of a data set: its hash, its counts, and whether it holds two classes. Pure.

The hash is SHA-256 over sorted canonical JSON of rule, images and exclusions. What differs between nodes with the same
content is not in it: ids, keyed digests (a patient is named by the first of the study UIDs), strata (they follow from
the images' bytes), words of reasons, who froze it and when.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from node.datasets.rule import SHARES
from node.learning_models import DatasetExclusion, DatasetItem

CLASSES = ("benign", "malignant")
_JUDGED = ("train", "test")  # splits that must hold both classes
_HASHED = (
    "sop_uid", "sop_class_uid", "sha256", "study_uid", "laterality", "view", "split",
    "benign", "malignant", "birads", "pathology_revision", "assessment_revision",
)  # fmt: skip


def content_hash(
    rule: Mapping[str, Any], items: Sequence[DatasetItem], exclusions: Iterable[DatasetExclusion]
) -> str:
    """SHA-256 of the content, hexadecimal: the same on every machine and database, in whatever order rows come."""
    first_uid: dict[str, str] = {}
    for item in items:
        first_uid[item.patient] = min(first_uid.get(item.patient, item.study_uid), item.study_uid)
    images = [
        {name: getattr(item, name) for name in _HASHED} | {"patient": first_uid[item.patient]}
        for item in items
    ]
    left_out = sorted([one.study_uid, one.sop_uid or "", one.code] for one in exclusions)
    content = {
        "rule": rule,
        "items": sorted(images, key=lambda image: str(image["sop_uid"])),
        "exclusions": left_out,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def counts(items: Iterable[DatasetItem], exclusions: Iterable[DatasetExclusion]) -> dict[str, Any]:
    """Patients, studies, breasts, images and breasts by class of each split; exclusions by code.

    A breast with both findings counts as benign, as malignant and as both; `negative` breasts have neither.
    """
    by_split: dict[str, list[DatasetItem]] = {split: [] for split in SHARES}
    for item in items:
        by_split[item.split].append(item)
    codes = Counter(one.code for one in exclusions)
    return {
        "splits": {split: _count(part) for split, part in by_split.items()},
        "excluded": dict(sorted(codes.items())),
        "one_class": one_class(by_split),
    }


def _count(items: Sequence[DatasetItem]) -> dict[str, int]:
    breasts = {(item.study_uid, item.laterality): (item.benign, item.malignant) for item in items}
    findings = list(breasts.values())
    return {
        "patients": len({item.patient for item in items}),
        "studies": len({item.study_uid for item in items}),
        "breasts": len(breasts),
        "images": len(items),
        "negative": findings.count((False, False)),
        "benign": sum(benign for benign, _ in findings),
        "malignant": sum(malignant for _, malignant in findings),
        "both": findings.count((True, True)),
    }


def one_class(by_split: Mapping[str, Sequence[DatasetItem]]) -> list[str]:
    """What train and test lack to learn or measure both classes, such as "test has no malignant breast"."""
    found = []
    for split in _JUDGED:
        for name in CLASSES:
            labels = {bool(getattr(item, name)) for item in by_split[split]}
            if True not in labels:
                found.append(f"{split} has no {name} breast")
            if False not in labels:
                found.append(f"{split} has only {name} breasts")
    return found
