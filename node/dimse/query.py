"""Asking a peer what it has, and having it send it: C-FIND and C-MOVE (DICOM PS3.4 annex C) as their user.

Study Root, which every peer that answers queries has. A data set that comes back stays in memory and in no log.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_io.parse import PARSE_ERRORS
from dicom_io.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.association import lost
from node.config import Settings
from node.deliveries import Destination
from node.dimse.sending import association_to
from node.errors import PeerRefused, PeerUnavailable

_FIND = str(StudyRootQueryRetrieveInformationModelFind)
_MOVE = str(StudyRootQueryRetrieveInformationModelMove)
_SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
_PENDING = (0xFF00, 0xFF01)
_CANCELLED = 0xFE00
_UNKNOWN_DESTINATION = 0xA801
_MOVE_ID = 1
_STEP_S = 0.05
_KEEPALIVE_S = 60  # a peer that has died without a word is noticed after some minutes

Check = Callable[[], None]
"""Called often while a peer works; raises where there is no reason to go on."""


@dataclass(frozen=True)
class Held:
    """One object that a peer says it has."""

    series_uid: str
    sop_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class Found:
    """A study that a peer says it has; `birth_date` and `patient_id` are for comparison and go nowhere else."""

    study_uid: str
    study_date: str
    modalities: tuple[str, ...]
    patient_id: str = field(repr=False)
    birth_date: str = field(repr=False)


def objects_of(source: Destination, study_uid: str, settings: Settings, check: Check) -> list[Held]:
    """Every object of a study that a peer has; none where it does not know the study.

    Raises:
        PeerUnavailable: no connection, no answer, or a status that may pass.
        PeerRefused: it answers no such queries.
    """
    held: list[Held] = []
    with association_to(source, [(_FIND, _SYNTAXES)], settings) as association:
        series = [
            str(one.get("SeriesInstanceUID") or "")
            for one in _find(
                association,
                source,
                "SERIES",
                check,
                StudyInstanceUID=study_uid,
                SeriesInstanceUID="",
                Modality="",
            )
        ]
        for series_uid in dict.fromkeys(uid for uid in series if uid):
            found = _find(
                association,
                source,
                "IMAGE",
                check,
                StudyInstanceUID=study_uid,
                SeriesInstanceUID=series_uid,
                SOPInstanceUID="",
                SOPClassUID="",
            )
            held += [
                Held(series_uid, str(one.SOPInstanceUID), str(one.get("SOPClassUID") or ""))
                for one in found
                if one.get("SOPInstanceUID")
            ]
    return list({one.sop_uid: one for one in held}.values())


def studies_of(source: Destination, patient_id: str, dates: str, settings: Settings) -> list[Found]:
    """The studies of a Patient ID that a peer has, in a range of dates such as `20200101-20231231`.

    Raises:
        PeerUnavailable: no connection, no answer, or a status that may pass.
        PeerRefused: it answers no such queries.
    """
    with association_to(source, [(_FIND, _SYNTAXES)], settings) as association:
        found = _find(
            association,
            source,
            "STUDY",
            lambda: None,
            PatientID=patient_id,
            StudyDate=dates,
            StudyInstanceUID="",
            PatientBirthDate="",
            ModalitiesInStudy="",
        )
        return [_found(one) for one in found if one.get("StudyInstanceUID")]


def _found(one: Dataset) -> Found:
    modalities = one.get("ModalitiesInStudy") or ()
    listed = (modalities,) if isinstance(modalities, str) else modalities
    return Found(
        study_uid=str(one.StudyInstanceUID),
        study_date=str(one.get("StudyDate") or ""),
        modalities=tuple(str(word) for word in listed),
        patient_id=str(one.get("PatientID") or "").strip(),
        birth_date=str(one.get("PatientBirthDate") or "").strip(),
    )


def _find(
    association: Association, source: Destination, level: str, check: Check, **keys: str
) -> Iterator[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    if not query.get("PatientID", "").isascii():
        query.SpecificCharacterSet = "ISO_IR 192"
    for status, identifier in association.send_c_find(query, _FIND):
        check()
        value = status.get("Status")
        if value is None:
            raise lost(association)
        if value in _PENDING:
            if identifier is None:
                raise PeerUnavailable(
                    f"{source.name} sent an answer that cannot be read; see its log"
                )
            try:
                _settle(identifier)
            except PARSE_ERRORS:
                raise PeerUnavailable(
                    f"{source.name} sent an answer that cannot be read; see its log"
                ) from None
            yield identifier
        elif value != 0x0000:
            raise _refused(value, f"{source.name} refused the query")


def _settle(identifier: Dataset) -> None:
    """pydicom reads values when they are asked for; here is where a bad one is somebody's."""
    for element in identifier:
        _ = element.value


@dataclass(frozen=True)
class Moved:
    """What a peer says of a C-MOVE (PS3.4 C.4.2.1): objects sent, with and without a warning, and objects that it could
    not send."""

    sent: int
    failed: int


def move(
    source: Destination,
    study_uid: str,
    series_uids: Sequence[str],
    settings: Settings,
    check: Check,
) -> Moved:
    """Have a peer send a study, or these series of it, to our own AE title.

    A peer may be silent for long while it sends, or fetches from a tape: it has until `pull_limit_s`. Where `check`
    raises, it is told to stop (C-CANCEL) before the association ends.

    Raises:
        PeerUnavailable: no connection, ended before its last answer, or a status that may pass.
        PeerRefused: it does not know us as a destination, or sends nothing to anybody.
    """
    sent = failed = 0
    with association_to(source, [(_MOVE, _SYNTAXES)], settings) as association:
        _wait_patiently(association, settings.pull_limit_s, check)
        for series_uid in series_uids or [""]:
            asked = Dataset()
            asked.QueryRetrieveLevel = "SERIES" if series_uid else "STUDY"
            asked.StudyInstanceUID = study_uid
            if series_uid:
                asked.SeriesInstanceUID = series_uid
            done = _move(association, source, asked, settings)
            sent, failed = sent + done.sent, failed + done.failed
    return Moved(sent, failed)


def _move(
    association: Association, source: Destination, asked: Dataset, settings: Settings
) -> Moved:
    value, last = None, Dataset()
    for status, _ in association.send_c_move(asked, settings.ae_title, _MOVE, msg_id=_MOVE_ID):
        value, last = status.get("Status"), status
    if value is None:
        raise lost(association)
    if value == _UNKNOWN_DESTINATION:
        raise PeerRefused(
            f"{source.name} does not know us as a move destination: there, add AE title {settings.ae_title!r} with"
            f" this host and port {settings.listen_port}"
        )
    done = Moved(
        int(last.get("NumberOfCompletedSuboperations") or 0)
        + int(last.get("NumberOfWarningSuboperations") or 0),
        int(last.get("NumberOfFailedSuboperations") or 0),
    )
    # a part that failed, or all of it (0xA702), is found by looking at what is here
    if value not in (0x0000, 0xB000, 0xA702):
        raise _refused(value, f"{source.name} refused to send the study")
    return done


def _wait_patiently(association: Association, limit_s: float, check: Check) -> None:
    """Have the association wait for answers as long as that, looking every moment whether to go on."""
    receive = association.dimse.get_msg
    end = time.monotonic() + limit_s
    connection = association.dul.socket.socket
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)

    def get(block: bool = False) -> tuple[Any, ...]:
        """In place of the provider's `get_msg`."""
        if not block:
            return tuple(receive(block=False))
        while time.monotonic() < end and association.dul.is_alive():
            if association.acse.is_aborted():
                break
            try:
                check()
            except BaseException:
                if association.is_established:
                    association.send_c_cancel(_MOVE_ID, query_model=_MOVE)
                raise
            context_id, message = receive(block=False)
            if message is not None:
                return context_id, message
            time.sleep(_STEP_S)
        return None, None

    association.dimse.get_msg = get


def _refused(status: int, what: str) -> PeerUnavailable | PeerRefused:
    """Out of resources, cancelled, unable to process: these may pass. What the peer does not do, it never does."""
    text = f"{what} with status 0x{status:04X}; see its log"
    if status in (0x0122, 0x0124, 0x0211, 0xA900):
        return PeerRefused(text)
    return PeerUnavailable(text)
