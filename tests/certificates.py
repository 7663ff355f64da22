"""A certificate authority of its own for tests of TLS on this machine, made by the program openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and a certificate for 127.0.0.1 with its key."""

    ca: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a certificate. The test is skipped where openssl is not installed."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl")

    def openssl(*arguments: object) -> None:
        subprocess.run([program, *map(str, arguments)], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", 2)
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl("req", *key[:-2], "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=own")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", "own.csr", *by_ca, "-extfile", "names", "-days", 2, "-out", "own.pem")
    return Certificates(folder / "ca.pem", folder / "own.pem", folder / "own.key")
