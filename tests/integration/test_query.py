"""C-FIND to a running node, by pynetdicom and by dcmtk's findscu."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_RELEASE
from pynetdicom.presentation import build_context

from dicom_io.phantom import PhantomView, write_study
from dicom_io.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.config import Settings
from node.listener import Listener
from tests.conftest import make_settings
from tests.support import dcmtk
from tests.support.breast_objects import volume
from tests.support.listening import running, send
from tests.support.objects import write_object
from tests.support.query import FIND, Told, asking, find, identifier, told
from tests.support.services import wait_until

LIMIT = 8
VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
NAMES = {
    "N1": ("Müller^Jörg", "ISO_IR 100", "20250110"),
    "N2": ("Ωmega^Test", "ISO_IR 192", "20250210"),
    "N3": ("Plain^Person", "", "20250310"),
    **{f"E{n}": (f"Extra^{n}", "", f"2024010{n}") for n in range(1, 7)},
}


@dataclass(frozen=True)
class Node:
    """A node with a study of four views and some small ones; `files` of the four views."""

    listener: Listener
    settings: Settings
    files: list[Dataset]

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def study_uid(self) -> str:
        return str(self.files[0].StudyInstanceUID)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("query")
    views = [PhantomView(side, view, volume(side), (0.1, 0.1)) for side, view in VIEWS]  # type: ignore[arg-type]
    paths = list(write_study(folder / "views", views, seed=3, patient_id="FOUR").files)
    for number, (patient_id, (name, charset, day)) in enumerate(NAMES.items()):
        path = folder / f"{patient_id}.dcm"
        words = {"SpecificCharacterSet": charset} if charset else {}
        words |= {"PatientID": patient_id, "PatientName": name, "StudyDate": day}
        write_object(path, SeriesNumber=number, **words)
        paths.append(path)
    settings = make_settings(folder / "node", query_limit=LIMIT)
    headers = [dcmread(path, stop_before_pixels=True) for path in paths[:4]]
    with running(settings) as listener:
        assert set(send(settings, listener.port, *paths)) == {"0x0000"}
        yield Node(listener, settings, headers)


def ids(found: Told) -> set[str]:
    return {one.PatientID for one in found.identifiers}


def ask(node: Node, level: str = "STUDY", **keys: object) -> Told:
    return find(node.port, identifier(level, **keys))


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_study_with_what_was_asked_for(node: Node, syntax: str) -> None:
    asked = identifier("STUDY", PatientID="FOUR", StudyInstanceUID="", PatientName="", StudyDate="")
    asked.ModalitiesInStudy = asked.NumberOfStudyRelatedSeries = asked.StudyDescription = None
    asked.NumberOfStudyRelatedInstances = asked.SOPClassesInStudy = None
    found = find(node.port, asked, syntax)
    [study] = found.identifiers
    first = node.files[0]
    assert found.statuses == [0xFF00, 0x0000]
    assert study.StudyInstanceUID == node.study_uid
    assert (study.PatientName, study.StudyDate) == (first.PatientName, first.StudyDate)
    assert (study.ModalitiesInStudy, study.SOPClassesInStudy) == ("MG", first.SOPClassUID)
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (4, 4)
    assert "StudyDescription" in study  # asked for; empty, because nothing is known
    assert (study.RetrieveAETitle, study.InstanceAvailability) == ("TOMONODE", "ONLINE")
    assert (study.SpecificCharacterSet, study.QueryRetrieveLevel) == ("ISO_IR 192", "STUDY")
    assert "AccessionNumber" not in study  # not asked for


def test_series_and_objects_of_a_study(node: Node) -> None:
    asked = {"StudyInstanceUID": node.study_uid, "SeriesInstanceUID": "", "Modality": ""}
    series = ask(node, "SERIES", **asked, NumberOfSeriesRelatedInstances=None, SeriesNumber=None)
    assert {one.SeriesInstanceUID for one in series.identifiers} == {
        one.SeriesInstanceUID for one in node.files
    }
    assert {one.NumberOfSeriesRelatedInstances for one in series.identifiers} == {1}
    wanted = node.files[2]
    objects = ask(
        node, "IMAGE", **{**asked, "SeriesInstanceUID": wanted.SeriesInstanceUID}, ImageType="",
        SOPInstanceUID="", SOPClassUID="", NumberOfFrames="", Rows=None, ImageLaterality="",
    )  # fmt: skip
    [one] = objects.identifiers
    assert objects.statuses == [0xFF00, 0x0000]
    assert (one.SOPInstanceUID, one.SOPClassUID) == (wanted.SOPInstanceUID, wanted.SOPClassUID)
    assert (one.NumberOfFrames, one.Rows) == (wanted.NumberOfFrames, wanted.Rows)
    assert (one.ImageLaterality, list(one.ImageType)) == ("R", list(wanted.ImageType))


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"PatientName": "müller*"}, {"N1"}),
        ({"PatientName": "Ωmega^Test"}, {"N2"}),
        ({"PatientName": "PLAIN^P?rson"}, {"N3"}),
        ({"PatientID": "N1\\N3"}, {"N1", "N3"}),
        ({"StudyDate": "20250201-20250401"}, {"N2", "N3"}),
        ({"StudyDate": "20250210-"}, {"N2", "N3", "FOUR"}),
        ({"PatientID": "nobody"}, set()),
        ({"PatientID": "N*", "ModalitiesInStudy": "US"}, set()),
    ],
)
def test_matching(node: Node, keys: dict[str, str], found: set[str]) -> None:
    answer = ask(node, **{"PatientID": "", **keys})
    assert (answer.status, ids(answer)) == (0x0000, found)


def test_names_come_back_in_utf8_whatever_they_came_in(node: Node) -> None:
    found = ask(node, PatientID="N1\\N2", PatientName="")
    assert {str(one.PatientName) for one in found.identifiers} == {"Müller^Jörg", "Ωmega^Test"}


@pytest.mark.parametrize(
    ("level", "keys", "comment", "offending"),
    [
        ("SERIES", {}, "level SERIES needs one StudyInstanceUID", 0x0020000D),
        ("SERIES", {"StudyInstanceUID": "1.2\\1.3"}, "needs one StudyInstanceUID", 0x0020000D),
        ("SERIES", {"StudyInstanceUID": "1.2.*"}, "needs one StudyInstanceUID", 0x0020000D),
        ("IMAGE", {"StudyInstanceUID": "1.2"}, "IMAGE needs one SeriesInstanceUID", 0x0020000E),
        ("PATIENT", {"PatientID": "N1"}, "must be one of STUDY, SERIES, IMAGE", 0x00080052),
        ("", {"PatientID": "N1"}, "must be one of STUDY, SERIES, IMAGE", 0x00080052),
        ("STUDY", {"StudyDate": "yesterday"}, "", None),
        ("STUDY", {"StudyInstanceUID": "1.2.x"}, "", None),
        ("STUDY", {"PatientID": "x" * 2000}, "characters", None),
    ],
)
def test_an_identifier_that_cannot_be_is_refused_in_a_line(
    node: Node, level: str, keys: dict[str, str], comment: str, offending: int | None
) -> None:
    answer = ask(node, level, **keys)
    assert answer.statuses == [0xA900]
    assert comment in answer.comment
    assert 0 < len(answer.comment) <= 64
    assert answer.last.get("OffendingElement") == offending


@pytest.mark.parametrize(
    ("level", "keys", "status"),
    [
        ("STUDY", {"StudyDescription": "", "NumberOfStudyRelatedSeries": None}, 0xFF00),
        ("STUDY", {"PatientComments": ""}, 0xFF01),  # not known here
        ("STUDY", {"Modality": ""}, 0xFF01),  # of a level below: not returned
        ("STUDY", {"NumberOfSeriesRelatedInstances": None}, 0xFF01),
        ("SERIES", {"NumberOfSeriesRelatedInstances": None}, 0xFF00),
        ("SERIES", {"Manufacturer": "", "PatientName": ""}, 0xFF00),
        ("SERIES", {"Manufacturer": "Nobody"}, 0xFF01),  # returned, not matched
        ("SERIES", {"RequestAttributesSequence": [Dataset()]}, 0xFF01),
    ],
)
def test_a_key_that_is_not_supported_is_told_and_does_not_narrow(
    node: Node, level: str, keys: dict[str, object], status: int
) -> None:
    uid = {"StudyInstanceUID": node.study_uid, "PatientID": "FOUR"}
    answer = ask(node, level, **uid, **keys)
    assert answer.statuses[0] == status
    assert (answer.status, ids(answer)) == (0x0000, {"FOUR"})
    for one in answer.identifiers:
        assert not {"PatientComments", "Modality", "RequestAttributesSequence"} & set(one.dir())


def test_a_key_of_a_level_below_asks_for_studies_that_have_such_an_object(node: Node) -> None:
    uids = "\\".join(str(one.SeriesInstanceUID) for one in node.files[:2])
    answer = ask(node, PatientID="", SeriesInstanceUID=uids)
    assert (answer.status, ids(answer)) == (0x0000, {"FOUR"})


def test_more_than_the_limit_is_told_after_as_many_as_it_allows(node: Node) -> None:
    answer = ask(node, PatientID="")
    assert answer.statuses == [0xFF00] * LIMIT + [0xA700]
    assert answer.comment == "first 8 sent, there are more; narrow the query"
    exactly = ask(node, PatientID="", StudyDate="20240102-20251231")
    assert exactly.statuses == [0xFF00] * LIMIT + [0x0000]


def test_a_cancelled_query_stops(node: Node) -> None:
    second = iter([False, True])

    def hold(event: Event) -> None:
        """Between the second response and the third, the node waits until the C-CANCEL is here."""
        if next(second, False):
            wait_until(lambda: bool(event.assoc.dimse.cancel_req), 20, "C-CANCEL")

    with asking(node.port, [(FIND, EXPLICIT_LITTLE)]) as association:
        accepted_by(node, association).bind(evt.EVT_DIMSE_SENT, hold)
        responses = association.send_c_find(identifier("STUDY", PatientID=""), FIND, msg_id=7)
        first = next(responses)
        association.send_c_cancel(7, 1)
        answer = told(responses)
        assert (first[0].Status, answer.statuses) == (0xFF00, [0xFF00, 0xFE00])
        again = told(association.send_c_find(identifier("STUDY", PatientID="N1"), FIND, msg_id=7))
        assert (again.status, ids(again)) == (0x0000, {"N1"})


LEVEL = b"\x08\x00\x52\x00CS\x06\x00STUDY "
ANY_ID = b"\x10\x00\x20\x00LO\x00\x00"
OPEN_SEQUENCE = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
HOSTILE = {
    "nothing": None,
    "garbage": b"\xff" * 64,
    "cut off": LEVEL[:11],
    "length": b"\x08\x00\x52\x00CS\xff\xffSTUDY ",
    "level twice": b"\x08\x00\x52\x00CS\x0c\x00STUDY\\SERIES",
    "sequence in a number": LEVEL + b"\x20\x00\x11\x00SQ\0\0\x08\0\0\0\xfe\xff\x00\xe0\0\0\0\0",
    "a number that is none": LEVEL + b"\x28\x00\x08\x00IS\x04\x00bad ",
    "character set": b"\x08\x00\x05\x00CS\x04\x00\xff\xfe??"
    + LEVEL
    + b"\x10\x00\x10\x00PN\x04\x00\xe9\xff*A",
    "null": LEVEL + b"\x10\x00\x20\x00LO\x04\x00\0'; ",
    "deep": LEVEL + OPEN_SEQUENCE * 4000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_identifier_is_answered_and_nothing_else_happens(
    node: Node, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = HOSTILE[name]
    with asking(node.port, [(FIND, EXPLICIT_LITTLE)]) as association:
        association._reactor_checkpoint.clear()
        wait_until(lambda: association._is_paused, 5, "the association to pause")
        association.dimse.send_msg(query(content), 1)
        statuses = [0xFF00]
        while statuses[-1] in (0xFF00, 0xFF01):
            _, answer = association.dimse.get_msg(block=True)
            assert answer is not None, "the association ended"
            statuses.append(answer.Status)
        association._reactor_checkpoint.set()
        assert statuses[-1] in (0x0000, 0xA700, 0xA900, 0xC000)
        after = told(association.send_c_find(identifier("STUDY", PatientID="N1"), FIND))
        assert (after.status, ids(after)) == (0x0000, {"N1"})
    assert "Traceback" not in capfd.readouterr().err


def test_a_release_before_the_answers_is_answered(node: Node) -> None:
    second = iter([False, True])

    def hold(event: Event) -> None:
        """Between the second response and the third, the node waits until the A-RELEASE is here."""
        if next(second, False):
            wait_until(lambda: event.assoc.dul.peek_next_pdu() is not None, 20, "A-RELEASE")

    with asking(node.port, [(FIND, EXPLICIT_LITTLE)]) as association:
        accepted_by(node, association).bind(evt.EVT_DIMSE_SENT, hold)
        association._reactor_checkpoint.clear()
        wait_until(lambda: association._is_paused, 5, "the association to pause")
        association.dimse.send_msg(query(b"".join([LEVEL, ANY_ID])), 1)
        association.acse.send_release()
        wait_until(lambda: released(association), 20, "the answer to A-RELEASE")
        assert association.dimse.msg_queue.qsize() <= 2
        association._reactor_checkpoint.set()


def released(association: Association) -> bool:
    said = association.dul.peek_next_pdu()
    return isinstance(said, A_RELEASE) and said.result == "affirmative"


def accepted_by(node: Node, association: Association) -> Association:
    """The node's side of an association."""
    mine = association.dul.socket.socket.getsockname()[1]
    opened = node.listener.associations.all()
    [theirs] = [o.association for o in opened if o.association.requestor.port == mine]
    return theirs


def query(content: bytes | None) -> C_FIND:
    """A request with these bytes for an identifier."""
    request = C_FIND()
    request.MessageID, request.AffectedSOPClassUID, request.Priority = 1, FIND, 2
    request.Identifier = None if content is None else BytesIO(content)
    return request


def test_only_who_may_connect_may_ask(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, allowed_ae_titles=["FRIEND"])
    with running(settings) as listener:
        entity = AE("STRANGER")
        refused = entity.associate("127.0.0.1", listener.port, contexts=[build_context(FIND)])
        assert refused.is_rejected
        with asking(listener.port, [(FIND, EXPLICIT_LITTLE)], calling="FRIEND") as association:
            answer = told(association.send_c_find(identifier("STUDY", PatientID=""), FIND))
    assert answer.statuses == [0x0000]


def test_what_is_kept_aside_for_its_uid_is_not_listed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "node")
    uids = {"SOPInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    write_object(tmp_path / "first.dcm", PatientID="FIRST", **uids)
    write_object(tmp_path / "other.dcm", PatientID="OTHER", **uids)
    with running(settings) as listener:
        sent = send(settings, listener.port, tmp_path / "first.dcm", tmp_path / "other.dcm")
        answer = find(
            listener.port, identifier("STUDY", PatientID="", NumberOfStudyRelatedInstances=None)
        )
    assert sent == ["0x0000", "0x0111"]
    [study] = answer.identifiers
    assert (study.PatientID, study.NumberOfStudyRelatedInstances) == ("FIRST", 1)


@pytest.mark.system
def test_findscu_reads_the_answers(node: Node, tmp_path: Path) -> None:
    keys = ["StudyInstanceUID", "PatientName", "PatientID=N*", "NumberOfStudyRelatedInstances"]
    words = [word for key in ["QueryRetrieveLevel=STUDY", *keys] for word in ("-k", key)]
    done = dcmtk.run(
        "findscu", "-S", "-X", "-od", tmp_path, "-aec", "TOMONODE", *words, "127.0.0.1", str(node.port)
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = [dcmread(path, force=True) for path in sorted(tmp_path.iterdir())]
    assert {(one.PatientID, str(one.PatientName)) for one in found} == {
        (patient_id, NAMES[patient_id][0]) for patient_id in ("N1", "N2", "N3")
    }
    assert {one.NumberOfStudyRelatedInstances for one in found} == {1}
