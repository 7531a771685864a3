"""Certificates for tests, made by openssl: an authority, what it signed, and one that signed itself."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = "apt-get install openssl"
_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """What it is pinned by."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


class Authority:
    """A certification authority in a folder; skips the test where openssl is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip(f"openssl is not installed; {INSTALL}")
        folder.mkdir(parents=True)
        self._folder = folder
        self.own = self.self_signed("authority")

    @property
    def path(self) -> Path:
        """Its certificate."""
        return self.own.certificate

    def self_signed(self, name: str, password: str | None = None) -> Certificate:
        """A certificate that vouches for itself; its key encrypted where there is a password."""
        made = self._files(name)
        kind = _NEW_KEY[:2] + (("-passout", f"pass:{password}") if password else ("-nodes",))
        self._run(
            *("req", "-x509", *kind, "-days", "30", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(made.key), "-out", str(made.certificate)),
        )
        return made

    def signed(self, name: str, alternative: str = "IP:127.0.0.1") -> Certificate:
        """A certificate of this authority, for a subject alternative name such as DNS:pacs.example."""
        made, request = self._files(name), self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n")
        subject = ("-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(request))
        self._run("req", *_NEW_KEY, *subject)
        self._run(
            *("x509", "-req", "-in", str(request), "-days", "30", "-extfile", str(extensions)),
            *("-CA", str(self.own.certificate), "-CAkey", str(self.own.key), "-CAcreateserial"),
            *("-out", str(made.certificate)),
        )
        return made

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
