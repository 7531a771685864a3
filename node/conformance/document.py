"""The whole statement, in the order of PS3.2."""

from __future__ import annotations

from dicom_io.result_codes import NOTICE, PRIVATE_SCHEME
from node.config import Settings
from node.conformance import network, objects, statuses, web
from node.conformance.markdown import paragraph, points
from node.tls import client_context

_HEAD = f"""# DICOM conformance statement

Made from the tables that the node works by: `tomonode conformance` writes it, and a test compares it with this file.
{NOTICE}

Tomonode receives breast images, has a model read them, and gives back what was found as DICOM objects. It answers
queries and retrievals of what it holds, by DIMSE and by DICOMweb. How to connect it: [connect.md](connect.md). What is
read of the images: [inputs.md](inputs.md). What the results say: [results.md](results.md)."""


def statement() -> str:
    """The conformance statement as Markdown."""
    parts: list[tuple[str, list[str]]] = [
        ("# Implementation", network.implementation()),
        ("# SOP classes that others ask of the node (SCP)", network.as_provider()),
        ("# SOP classes that the node asks of others (SCU)", network.as_user()),
        ("# Transfer syntaxes", [*paragraph(_SYNTAXES), *network.transfer_syntaxes()]),
        ("# Association policies", network.policies()),
        ("## Rejections", network.rejections()),
        ("# Statuses", []),
        ("## Storage", [*paragraph(_PROMISE), *statuses.storage()]),
        ("## Query and retrieve", statuses.queries()),
        ("## Storage commitment", [*paragraph(_COMMITMENT), *statuses.commitments()]),
        ("## Statuses of others", statuses.as_user()),
        ("# Attributes of queries", [*paragraph(_QUERIES), *objects.queried()]),
        ("# Results", [*paragraph(_RESULTS), *objects.results_made()]),
        ("## Private codes", [*paragraph(_codes()), *objects.private_codes()]),
        ("# DICOMweb", [*paragraph(_WEB), *web.resources()]),
        ("# Character sets", _character_sets()),
        ("# Security", _security()),
        ("# Configuration", [*paragraph(_SETTINGS), *web.settings()]),
        ("# Appendix: storage SOP classes", network.storage_classes()),
    ]
    lines = [_HEAD, ""]
    for title, body in parts:
        lines += [f"#{title}", "", *body]
    return "\n".join(lines).rstrip() + "\n"


_SYNTAXES = "Objects are stored as they come, in any of these:"
_PROMISE = """Success means that the object is on disk and its row is committed. The same table gives the Failure
Reason of STOW-RS."""
_COMMITMENT = """Push Model. The node commits to objects that it received or made, whose row and whose bytes, by their
number, are there. The report goes out on the association of the request while that is open, else on one of the
node's own to the peer of that AE title, in the role of the SCP. A request of the same transaction for the same
objects gets the same answer."""
_QUERIES = """The matching of PS3.4 C.2.2.2, by C-FIND and QIDO-RS alike. An attribute that is kept and not listed
here is returned and not matched. Responses are in Unicode (`ISO_IR 192`)."""
_RESULTS = """One run makes the kinds that its destinations get. UIDs follow from the run, so that the same run gives
the same instances. All are series of their own in the study of their images, say that they are for research use
only, and name the model, its version and the SHA-256 of its weights."""
_WEB = """Media types, parameters and HTTP statuses are in [dicomweb.md](dicomweb.md)."""
_SETTINGS = """What each does: [settings.md](settings.md)."""


def _codes() -> str:
    return (
        f"Concepts that the standard has no code for are in the private scheme `{PRIVATE_SCHEME}`, which every object"
        " that uses one declares. No object has private attributes, and no SOP class is private."
    )


def _character_sets() -> list[str]:
    return [
        *paragraph(f"Read: {objects.character_sets()}."),
        *paragraph(
            "Results keep the character sets of their source, and so names in any script; text of the node's own"
            " is ASCII."
        ),
    ]


def _security() -> list[str]:
    version = client_context(Settings.model_construct(), None).minimum_version
    return points(
        f"{version.name.replace('_', '.')} or newer on a second DICOM port, and for pages and DICOMweb. On the DICOM"
        " port clients must show a certificate where authorities are set; a peer may be known by the SHA-256 of its own"
        " (a pin), in both directions.",
        "Calling AE titles and addresses are checked against lists; as installed the node listens on loopback only.",
        "Pages and DICOMweb have no log-in. There is no audit trail of PS3.15 A.5; logs carry no patient attribute.",
        "Objects are stored as they were received, not encrypted and not de-identified.",
    )
