"""The conformance statement: it is what the code says, and what the code says is so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role

from dicom_io import seg, write
from dicom_io.cad_sr import build_cad_sr
from dicom_io.findings import ImageFindings
from dicom_io.key_images import build_key_image
from dicom_io.key_objects import build_key_objects
from dicom_io.labelmap import build_labelmap
from dicom_io.parametric_map import build_parametric_map
from dicom_io.result_codes import PRIVATE_SCHEME
from dicom_io.seg_values import build_fractional
from dicom_io.sr import build_sr
from dicom_io.syntaxes import TRANSFER_SYNTAXES
from node import results
from node.config import Settings
from node.conformance import network, statuses
from node.conformance.document import statement
from node.conformance.objects import IODS, private_codes
from node.dimse import commitment_data, find, identifier, retrieve, serving, tally
from tests.conftest import make_settings
from tests.support import listening
from tests.support.sources import make_run, random_findings, source, tomosynthesis

_DOCUMENT = Path(__file__).parents[3] / "docs" / "conformance.md"
_RUN = make_run()


def test_the_document_is_what_the_code_says() -> None:
    assert _DOCUMENT.read_text() == statement(), "tomonode conformance > docs/conformance.md"


def test_every_status_that_a_service_names_is_in_it() -> None:
    named = {
        value
        for module in (find, identifier, retrieve, serving, tally)
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int) and value > 0x00FF
    }

    assert named - {tally.MOST} <= statuses.all_shown()
    for status in statuses.all_shown():
        assert f"0x{status:04X}" in statement()


def test_every_kind_of_result_is_in_it() -> None:
    assert tuple(IODS) == results.KINDS


@pytest.fixture(scope="module")
def marked() -> ImageFindings:
    """An image with both labels on two frames, and its levels."""
    findings = random_findings(source(tomosynthesis()), {"benign": [0], "malignant": [0, 1]})
    level = np.full(findings.source.shape, 200, dtype=np.uint8)
    return replace(findings, levels={"benign": {0: level}, "malignant": {0: level, 1: level}})


def _made(kind: str, findings: ImageFindings) -> Dataset | None:
    """An object of a kind."""
    if kind in (results.SEG, results.SEG_JPEG2000):
        return seg.build_seg(findings, _RUN, jpeg2000=kind == results.SEG_JPEG2000)
    if kind == results.SEG_FRACTIONAL:
        return build_fractional(findings, _RUN)
    if kind == results.SEG_LABELMAP:
        return build_labelmap(findings, _RUN)
    if kind == results.PARAMETRIC_MAP:
        return build_parametric_map(findings, "malignant", _RUN)
    study = findings.source.header
    if kind == results.KEY_IMAGE:
        return build_key_image(findings, 0, np.zeros(findings.source.shape, np.uint16), _RUN)
    if kind == results.SR:
        return build_sr(study, [findings], [], [], _RUN)
    if kind == results.CAD_SR:
        return build_cad_sr(study, [findings], [], _RUN)
    return build_key_objects(study, [findings], [], [], _RUN)


@pytest.mark.parametrize("kind", results.KINDS)
def test_an_object_of_each_kind_is_what_it_says(
    kind: str, marked: ImageFindings, tmp_path: Path
) -> None:
    made = _made(kind, marked)
    assert made is not None
    write.write(made, tmp_path / "one.dcm")
    read = dcmread(tmp_path / "one.dcm")

    iod = IODS[kind]
    assert read.SOPClassUID == iod.sop_class_uid
    assert read.file_meta.TransferSyntaxUID.name == iod.transfer_syntax
    template = read.get("ContentTemplateSequence") or [Dataset()]
    assert template[0].get("TemplateIdentifier", "") == iod.template
    codes = _private_codes(read)
    known = "\n".join(private_codes())
    assert all(f"`{code}`" in known for code in codes), codes
    assert not [element.tag for element in read.iterall() if element.tag.is_private]


def _private_codes(dataset: Dataset) -> set[str]:
    items = [dataset]
    values = set()
    while items:
        item = items.pop()
        if item.get("CodingSchemeDesignator") == PRIVATE_SCHEME and "CodeValue" in item:
            values.add(str(item.CodeValue))
        items += [one for element in item if element.VR == "SQ" for one in element.value]
    return values


def test_a_listener_accepts_what_it_says(tmp_path: Path) -> None:
    settings: Settings = make_settings(tmp_path)
    offered = {uid: offer for s in network.registered() for uid, offer in s.offers.items()}
    chosen = dict(sorted(offered.items(), key=lambda one: len(one[0]))[:60])  # a context each
    chosen[commitment_data.PUSH_MODEL] = offered[commitment_data.PUSH_MODEL]
    entity = AE("ASKS")
    for uid, offer in chosen.items():
        entity.add_requested_context(uid, list(offer.transfer_syntaxes))
    entity.add_requested_context("1.2.840.10008.5.1.4.1.2.1.1", TRANSFER_SYNTAXES[1])
    roles = [build_role(uid, scp_role=True) for uid, o in chosen.items() if o.both_roles]
    with listening.running(settings) as running:
        association = entity.associate(
            "127.0.0.1", running.port, ae_title=settings.ae_title, ext_neg=roles
        )
        accepted = {UID(c.abstract_syntax): c for c in association.accepted_contexts}
        association.release()

    assert set(accepted) == set(chosen)
    for uid, offer in chosen.items():
        assert bool(accepted[UID(uid)].as_scp) is offer.both_roles
