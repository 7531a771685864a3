"""What the doctor says of certificates: good, nearly over, over, unreadable, or with the key of another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from node import doctor
from node.config import Settings
from node.doctor import Check
from tests.conftest import make_settings
from tests.support.certificates import Authority, Certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


def checks(settings: Settings) -> list[Check]:
    return [one for one in doctor.examine(settings) if one.name.startswith("certificate")]


def with_tls(folder: Path, made: Certificate, **more: object) -> Settings:
    words = {"listen_tls_port": 2762, "tls_certificate": made.certificate, "tls_key": made.key}
    return make_settings(folder, **{**words, **more})


def ending(made: Certificate, folder: Path, days: int) -> Certificate:
    """The certificate signed again by its own key, for so many days from now."""
    path = folder / f"days{days}.pem"
    words = ["x509", "-in", made.certificate, "-signkey", made.key, "-days", days, "-out", path]
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    return Certificate(path, made.key)


def test_none_is_set(tmp_path: Path) -> None:
    assert checks(make_settings(tmp_path)) == []


def test_good_ones(tmp_path: Path, authority: Authority) -> None:
    made = authority.signed("node")
    web = {"web_certificate": made.certificate, "web_key": made.key}
    found = checks(with_tls(tmp_path, made, tls_authorities=authority.path, **web))
    assert [(one.name, one.ok) for one in found] == [
        ("certificate DICOM", True),
        ("certificate web", True),
    ]
    assert "is good until 2" in found[0].found


def test_one_that_ends_soon_or_is_over(tmp_path: Path, authority: Authority) -> None:
    made = authority.self_signed("short")
    [soon] = checks(with_tls(tmp_path, ending(made, tmp_path, 5)))
    assert not soon.ok
    assert "days are left: put a new one in TOMONODE_TLS_CERTIFICATE" in soon.mend
    [over] = checks(with_tls(tmp_path, ending(made, tmp_path, -1)))
    assert not over.ok
    assert "certificate has expired" in over.found


def test_one_for_clients_is_none_for_a_port(tmp_path: Path, authority: Authority) -> None:
    made = authority.self_signed("client")
    usage = tmp_path / "usage"
    usage.write_text("extendedKeyUsage=clientAuth\n")
    path = tmp_path / "client.pem"
    words = ["x509", "-in", made.certificate, "-signkey", made.key, "-days", 90, "-out", path]
    words += ["-clrext", "-extfile", usage]
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    client = Certificate(path, made.key)
    [as_server] = checks(with_tls(tmp_path, client))
    [as_client] = checks(with_tls(tmp_path, client, listen_tls_port=0))
    assert (as_server.ok, as_client.ok) == (False, True)
    assert "purpose" in as_server.found


def test_ones_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    made, other = authority.signed("mine"), authority.signed("other")
    nothing = Certificate(tmp_path / "none.pem", made.key)
    for wrong in (Certificate(made.certificate, other.key), nothing):
        [found] = checks(with_tls(tmp_path, wrong))
        assert not found.ok
        assert str(wrong.certificate) in found.found
        assert found.mend
    [found] = checks(make_settings(tmp_path, listen_tls_port=2762))
    assert (found.ok, found.found) == (False, "TLS needs a certificate")
