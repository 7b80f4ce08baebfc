"""The certificate that a client has shown, as texts for servers: its subject (RFC 4514) and its fingerprint."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# RFC 4514 3; others by the name that OpenSSL gives them.
_SHORT = {
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O", "organizationalUnitName": "OU",
    "countryName": "C", "streetAddress": "STREET", "domainComponent": "DC", "userId": "UID"}
_SPECIAL = re.compile(rb'["+,;<>\\=]')
# Pairs of hexadecimal digits for what is not plain ASCII: no value can end the field, nor is it read in two ways.
_NOT_PLAIN = re.compile(rb"^[ #]|[^ -~]| $")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that was verified by the authorities of the listener."""

    subject: bytes  # such as CN=ann,O=Example; what comes last in the certificate comes first
    fingerprint: bytes  # SHA-256 of the certificate, in hexadecimal digits


def client_certificate(described: Mapping[str, Any] | None, der: bytes | None) -> ClientCertificate | None:
    """The certificate that `ssl` describes so (`getpeercert`); None: there is none, or nobody has verified it."""
    if not described or not der:
        return None
    names = reversed(described.get("subject", ()))
    subject = b",".join([b"+".join([_pair(kind, value) for kind, value in name]) for name in names])
    return ClientCertificate(subject, hashlib.sha256(der).hexdigest().encode())


def _pair(kind: str, value: str) -> bytes:
    text = _SPECIAL.sub(rb"\\\g<0>", value.encode("utf-8", "surrogateescape"))
    return b"%b=%b" % (_SHORT.get(kind, kind).encode(), _NOT_PLAIN.sub(lambda found: b"\\%02X" % ord(found[0]), text))
