"""Certificates made for a test by the openssl command."""
from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is missing")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that signs itself, and its key, as PEM files."""

    certificate: Path
    key: Path


def make_pair(folder: Path, name: str, *hosts: str) -> Pair:
    """A certificate for `hosts` (names or IP addresses) in `folder`."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    names = ",".join(f"IP:{host}" if host.replace(".", "").isdigit() else f"DNS:{host}" for host in hosts)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-keyout", str(pair.key), "-out", str(pair.certificate)],
        check=True, capture_output=True,
    )
    return pair
