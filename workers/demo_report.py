"""What the demonstration shows of what arrived: pictures, a table, summary.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_io.dbt import MammogramImage, open_image
from dicom_io.header import read_header
from dicom_io.overlay import key_slice_png
from dicom_io.recognise import Kind, kind_of
from dicom_io.series import open_series
from node.cli import output
from workers import demo_truth
from workers.demo_watch import Progress
from workers.readback import Received, RegionRead, SegmentationRead

Say = Callable[[str], None]


@dataclass(frozen=True)
class Story:
    """All that is known at the end of the demonstration. `sent` maps SOP Instance UID to the file."""

    received: Received
    progress: Sequence[Progress]
    sent: Mapping[str, Path]
    skipped: Sequence[Mapping[str, str]]
    seconds: Mapping[str, float]
    truth: Mapping[str, Any] | None

    @property
    def caveat(self) -> str:
        """What the reports say a reader must know of the weights."""
        return " ".join(sorted({report.caveat for report in self.received.reports} - {""}))


def _image(story: Story, uid: str) -> MammogramImage:
    """An image that was sent, by its object or by one of its slices."""
    path = story.sent[uid]
    header = read_header(path)
    if kind_of(header) is not Kind.TOMO_SLICE:
        return open_image(path)
    series = header.series_instance_uid
    paths = [p for p in story.sent.values() if read_header(p).series_instance_uid == series]
    return open_series(paths)


def write_overlays(story: Story, folder: Path, say: Say) -> dict[str, str]:
    """A picture of the key slice of each image that was read, from the received SEG and the source.

    Returns:
        The picture's name by SOP Instance UID.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    for report in story.received.reports:
        for uid in sorted(report.scores):
            image = _image(story, uid)
            seg = story.received.segmentations.get(uid)
            frame = key_frame(image, seg, report.regions.get(uid, []))
            side = f"{image.laterality}-{image.view}"
            name = f"{side}-{uid[-12:]}.png"
            title = f"{side}, frame {frame} of {image.number_of_frames}, from the received SEG"
            picture = key_slice_png(
                image.read_frame(frame - 1),
                seg.masks(frame) if seg else {},
                (),
                title,
                caveat=report.caveat,
                window=image.window,
            )
            (folder / name).write_bytes(picture)
            pictures[uid] = name
    say(f"{len(pictures)} pictures in {folder}")
    return pictures


def key_frame(
    image: MammogramImage, seg: SegmentationRead | None, regions: Sequence[RegionRead]
) -> int:
    """The frame (from 1) to show: of the highest malignant region that the SEG draws, else of the highest region, else
    the middle one of the SEG, else of the image."""
    drawn = {frame for frames in (seg.frames.values() if seg else ()) for frame in frames}
    candidates = [region for region in regions if region.key_frame in drawn] or list(regions)
    if candidates:
        return max(candidates, key=lambda r: (r.label == "malignant", r.score)).key_frame
    frames = sorted(drawn) or list(range(1, image.number_of_frames + 1))
    return frames[len(frames) // 2]


def rows(story: Story, pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an image that was read, as the received objects tell it."""
    found = []
    for report in story.received.reports:
        for uid, scores in report.scores.items():
            image = _image(story, uid)
            seg = story.received.segmentations.get(uid)
            found.append(
                {
                    "view": f"{image.laterality}-{image.view}",
                    "malignant": scores["malignant"],
                    "benign": scores["benign"],
                    "segments": len(seg.frames) if seg else 0,
                    "frames": seg.frame_count if seg else 0,
                    "regions": len(report.regions.get(uid, [])),
                    **_truth(story, uid),
                    "files": [f.name for f in (seg.path if seg else None, report.path) if f],
                    "picture": pictures.get(uid),
                    "sop_instance_uid": uid,
                    "study_instance_uid": report.study_uid,
                    "source": str(story.sent[uid]),
                }
            )
    return sorted(found, key=lambda row: (row["study_instance_uid"], row["view"]))


def _truth(story: Story, uid: str) -> dict[str, Any]:
    """What truth.json says is in an image ("none", or None where there is no truth), and the SEG beside it."""
    entry = demo_truth.truth_of(story.truth, uid)
    if entry is None:
        return {"lesion": None, "dice": None}
    labels = ", ".join(lesion["label"] for lesion in entry["lesions"]) or "none"
    dice = demo_truth.dice(story.received.segmentations.get(uid), entry)
    return {"lesion": labels, "dice": None if dice is None else round(dice, 3)}


def _beside(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What is known of an image, and the Dice of its segmentation with that."""
    if row["lesion"] is None:
        return ()
    return (row["lesion"], "-" if row["dice"] is None else f"{row['dice']:.2f}")


def write_summary(story: Story, table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Everything of the table and more, as JSON."""
    document = {
        "notice": output.notice(story.caveat),
        "images": list(table),
        "breasts": demo_truth.breasts(table),
        "studies": [vars(progress) for progress in story.progress],
        "received_files": [file.name for file in story.received.files],
        "replaced_objects": story.received.replaced,
        "skipped": list(story.skipped),
        "seconds": {name: round(value, 2) for name, value in story.seconds.items()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(story: Story, table: Sequence[Mapping[str, Any]]) -> None:
    """The tables for people."""
    output.say()
    columns = ("view", "malignant", "benign", "segments", "frames", "regions")
    shown = [
        [*(row[name] for name in columns), "SEG, SR" if row["segments"] else "SR", *_beside(row)]
        for row in table
    ]
    headings = (*columns, "arrived", *(("truth", "Dice") if story.truth else ()))
    output.table(headings, shown, "no image was read")
    output.say()
    columns = ("breast", "malignant", "benign", *(("truth",) if story.truth else ()))
    sides = demo_truth.breasts(table).items()
    output.table(
        columns,
        [(side, *(value for value in of.values() if value is not None)) for side, of in sides],
        "no breast was read",
    )
    for progress in story.progress:
        for uid, reason in progress.left_out.items():
            output.say(f"left out {story.sent.get(uid, Path(uid)).name}: {reason}")
        if progress.status == "excluded":
            output.say(f"study ...{progress.study_uid[-12:]} was not read: {progress.reason}")
    output.say()
    output.table(
        ("stage", "seconds"), [(name, f"{s:.1f}") for name, s in story.seconds.items()], ""
    )
    output.say()
    output.scores_notice(story.caveat)
