"""`tomonode demo`: a study through a node of its own, from the sender to a PACS, and what arrived there.

Everything lies in one folder: the phantom, the node's home, what the PACS received, pictures and summary.json.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dicom_io.errors import DicomIoError
from dicom_io.header import read_header
from node import scu
from node.cli import output
from node.config import Settings
from node.db import Database
from node.errors import ConfigError, UnreadableObject
from node.processes import claim_port
from workers import demo_report, readback
from workers.demo_node import DemoNode, running
from workers.demo_report import Story
from workers.demo_watch import Progress, follow
from workers.errors import DemoFailed
from workers.phantom import PhantomPlan, write_phantom

DEMONSTRATION = Path(__file__).parent / "demo_weights" / "gmic3d-phantom-1.safetensors"
"""Weights that find the lesions of phantoms, and know nothing else; docs/demo-weights.md is their card."""
_MARK = ".tomonode-demo"
_MADE = (
    "home", "pacs", "phantom", "pictures", "summary.json", "labels.csv", "evaluation.html", "weights",
)  # fmt: skip
_SEED = 11


@dataclass(frozen=True)
class _Sources:
    """What is sent: files by SOP Instance UID, their studies, and the truth where it is known."""

    files: Mapping[str, Path]
    studies: frozenset[str]
    skipped: tuple[Mapping[str, str], ...]
    truth: Mapping[str, Any] | None


class Clock:
    """Seconds a stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def run_demo(out: Path, input_: Path | None, slices: int, base: Settings) -> None:
    """Run the demonstration.

    Args:
        out: folder for everything; emptied of what an earlier demonstration left.
        input_: DICOM file or folder to send; None makes a phantom.
        slices: of each view of the phantom.
        base: settings of the model (weights, device, threads) and of the time-outs; addresses and folders are replaced.

    Raises:
        DemoFailed, NodeError, DicomIoError, GmicError: it did not come to its end; everything is stopped.
    """
    out = out.absolute()
    clean(out)
    clock = Clock()
    with terminated_like_interrupted():
        with clock.stage("make the phantom" if input_ is None else "look at the files"):
            sources = _phantom(out, slices) if input_ is None else _own(input_)
        settings = demo_settings(base, out)
        output.say("starting a node and a receiving PACS")
        starting = time.monotonic()
        with running(settings, out / "pacs", output.say) as node:
            clock.seconds["start node and PACS"] = time.monotonic() - starting
            progress = _journey(node, sources, settings, clock)
            _look_at_web(node)
            failed = [p for p in progress if p.status in ("failed", "delivery failed")]
            if failed:
                raise DemoFailed(
                    f"study {failed[0].study_uid} {failed[0].status}; {failed[0].reason}; see {node.log('up').parent}"
                )
            with clock.stage("read back"):
                received = readback.read_folder(node.pacs_folder)
                received.check_references(sources.files)
                _check_complete(received, progress)
        story = Story(
            received, progress, sources.files, sources.skipped, clock.seconds, sources.truth
        )
        _tell(story, out, node)


def clean(out: Path) -> None:
    """Make the folder, or remove from it what an earlier demonstration made, and nothing else.

    Raises:
        ConfigError: it is somebody else's folder, or cannot be written.
    """
    try:
        if out.exists() and not (out / _MARK).exists() and any(out.iterdir()):
            raise ConfigError(
                f"folder {out} holds other things than a demonstration; give an empty or a new one with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).touch()
        for name in _MADE:
            path = out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"folder {out} cannot be used; {error.strerror}; give another one with --out"
        ) from None


def demo_settings(base: Settings, out: Path) -> Settings:
    """The node of the demonstration: loopback only, free ports, SQLite and a Redis of its own, short waits."""
    host = "127.0.0.1"
    return base.model_copy(
        update={
            "home": out / "home",
            "weights": base.weights or DEMONSTRATION,
            "database_url": "",
            "redis_url": "",
            "listen_host": host,
            "listen_port": claim_port(host, 0, ""),
            "web_host": host,
            "web_port": claim_port(host, 0, ""),
            "allowed_ae_titles": frozenset(),
            "allowed_addresses": frozenset({"127.0.0.0/8"}),
            "quiet_s": 5.0,
            "views_quiet_s": 1.0,
            "deadline_policy": "complete",
            "retry_base_s": 2.0,
            "delivery_deadline_s": 120.0,
        }
    )


def _phantom(out: Path, slices: int) -> _Sources:
    plan = PhantomPlan(seed=_SEED, shape=(slices, 2457, 1890))
    output.say(f"making a phantom study with a known {plan.lesion} lesion in breast {plan.breast}")
    study = write_phantom(out / "phantom", plan, lambda line: output.say(f"  {line}"))
    truth = json.loads(study.truth.read_text())
    by_name = {path.name: path for path in study.files}
    files = {entry["sop_instance_uid"]: by_name[entry["file"]] for entry in truth["files"]}
    return _Sources(files, frozenset({study.study_instance_uid}), (), truth)


def _own(root: Path) -> _Sources:
    """Files that can be sent; what cannot is named and passed over."""
    paths = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    files: dict[str, Path] = {}
    studies: set[str] = set()
    skipped = []
    for path in paths:
        try:
            scu.outgoing(path)
            header = read_header(path)
        except (UnreadableObject, DicomIoError) as error:
            skipped.append({"path": str(path), "reason": str(error)})
            output.say(f"skipped {path}: {error}")
            continue
        if header.sop_instance_uid in files:
            skipped.append({"path": str(path), "reason": "same SOP Instance UID as another file"})
            output.say(f"skipped {path}: same SOP Instance UID as {files[header.sop_instance_uid]}")
            continue
        files[header.sop_instance_uid] = path.absolute()
        studies.add(header.study_instance_uid)
    if not files:
        raise DemoFailed(f"no DICOM file among {len(paths)} in {root}; give a folder with some")
    output.say(f"{len(files)} DICOM files of {len(studies)} studies in {root}")
    return _Sources(files, frozenset(studies), tuple(skipped), None)


def _journey(node: DemoNode, sources: _Sources, settings: Settings, clock: Clock) -> list[Progress]:
    output.say(f"sending {len(sources.files)} files over a DICOM association")
    with clock.stage("send"):
        results = node.send(list(sources.files.values()))
    accepted = {result["path"] for result in results if result["accepted"]}
    for result in results:
        if not result["accepted"]:
            output.say(f"not accepted {result['path']}: {result['reason']}")
    studies = {
        read_header(path).study_instance_uid
        for path in sources.files.values()
        if str(path) in accepted
    }
    if not studies or (sources.truth and len(accepted) < len(sources.files)):
        raise DemoFailed(
            f"{len(accepted)} of {len(results)} files were accepted by the node; see {node.log('listener')}"
        )
    output.say(f"{len(accepted)} files accepted; waiting for SEG and SR at the PACS")
    db = Database(settings.db_url)
    try:
        with clock.stage("last byte sent to SR delivered"):
            progress = follow(db, studies, node.check_alive, output.say, settings.run_limit_s)
    finally:
        db.dispose()
    for found in progress:
        for name, seconds in found.stage_seconds.items():
            label = f"  of it: {name}"
            clock.seconds[label] = clock.seconds.get(label, 0.0) + float(seconds)
    return progress


def _look_at_web(node: DemoNode) -> None:
    try:
        answer = httpx.get(node.web_url, timeout=20)
    except httpx.HTTPError as error:
        raise DemoFailed(
            f"web page {node.web_url} does not answer; {error}; see {node.log('web')}"
        ) from None
    if answer.status_code != 200:
        raise DemoFailed(
            f"web page {node.web_url} answered HTTP {answer.status_code}; see {node.log('web')}"
        )


def _check_complete(received: readback.Received, progress: list[Progress]) -> None:
    delivered = {p.study_uid for p in progress if p.status == "delivered"}
    if not delivered:
        raise DemoFailed(
            "nothing in the files could be read; "
            + "; ".join(sorted({p.reason or p.status for p in progress}))
        )
    reported = {report.study_uid for report in received.reports}
    if missing := delivered - reported:
        raise DemoFailed(f"no SR of study {sorted(missing)[0]} arrived, though it was delivered")


def _tell(story: Story, out: Path, node: DemoNode) -> None:
    pictures = demo_report.write_overlays(story, out / "pictures", output.say)
    table = demo_report.rows(story, pictures)
    demo_report.write_summary(story, table, out / "summary.json")
    demo_report.show(story, table)
    output.say()
    output.say(f"received  {len(story.received.files)} files in {out / 'pacs'}")
    output.say(f"summary   {out / 'summary.json'}")
    output.say(f"web page  answered at {node.web_url} and stopped with the demonstration; again:")
    output.say(f"          TOMONODE_HOME={out / 'home'} {output.command()} up")


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it started is stopped."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
