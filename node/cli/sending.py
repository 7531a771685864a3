"""`tomonode send`: files to a Storage SCP, with a line a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from node import scu
from node.cli import output
from node.config import load_settings
from node.errors import UnreadableObject


def send_files(
    host: str, port: int, paths: Iterable[Path], called_ae: str, calling_ae: str, as_json: bool
) -> None:
    """Send files, and what is DICOM in folders, in the order of their names.

    Raises:
        typer.Exit: with code 1, something was not accepted.
        UnreadableObject: the folders hold no DICOM file.
    """
    settings = load_settings(ae_title=calling_ae)
    files = list(_files(paths))
    if not files:
        raise UnreadableObject("nothing to send; no DICOM file in the folders; give others")
    tell = (lambda _result: None) if as_json else _tell
    results = scu.send_files(host, port, called_ae, files, settings, tell)
    accepted = sum(result.accepted for result in results)
    size_mb = sum(result.size_bytes for result in results if result.accepted) / 2**20
    seconds = sum(result.seconds for result in results)
    if as_json:
        output.as_json([vars(result) for result in results])
    else:
        output.say(
            f"{accepted} of {len(results)} files accepted; {size_mb:.1f} MB, {seconds:.1f} s"
        )
    if accepted < len(results):
        output.warn(
            f"tomonode: {len(results) - accepted} of {len(results)} files not accepted by {called_ae} at"
            f" {host}:{port}; see the reasons above; send them again"
        )
        raise typer.Exit(1)


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    """Files as given; of folders whatever has the DICOM prefix (PS3.10 7.1), the rest named and passed over."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            if has_dicom_prefix(file):
                yield file
            else:
                output.warn(f"skipped {file}: no DICOM file")


def has_dicom_prefix(path: Path) -> bool:
    """Whether a file begins as a DICOM file must: 128 bytes, then DICM. False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _tell(result: scu.FileResult) -> None:
    said = result.status if result.accepted else f"not accepted: {result.reason}"
    output.say(f"{result.path.name}  {said}  {result.size_bytes / 2**20:.1f} MB")
