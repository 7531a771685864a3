"""`tomonode conformance`: the DICOM conformance statement."""

from __future__ import annotations

from node.cli import output


def conformance() -> None:
    """Print the DICOM conformance statement (PS3.2) of this program, as Markdown."""
    from node.conformance.document import (
        statement,
    )  # the services and FastAPI, which others do without

    output.say(statement().rstrip())
