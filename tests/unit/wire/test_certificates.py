"""Certificates of clients as texts."""
from __future__ import annotations

import hashlib

import pytest

from prefork_lb.wire import grammar
from prefork_lb.wire.certificates import client_certificate

CN, ORG, OU = "commonName", "organizationName", "organizationalUnitName"


@pytest.mark.parametrize(("names", "subject"), [
    ([[(ORG, "Example")], [(CN, "ann")]], b"CN=ann,O=Example"),
    ([[(CN, "a"), (OU, "b")]], b"CN=a+OU=b"),
    ([[(CN, "John Smith, jr. \"x\" <a+b>;\\=")]], rb"CN=John Smith\, jr. \"x\" \<a\+b\>\;\\\="),
    ([[(CN, " a ")]], rb"CN=\20a\20"),
    ([[(CN, "#1#")]], rb"CN=\231#"),
    ([[(CN, "é\r\nX: 1\0")]], rb"CN=\C3\A9\0D\0AX: 1\00"),
    ([[("emailAddress", "a@b.test")]], b"emailAddress=a@b.test"),
    ([], b""),
])
def test_subjects_as_rfc_4514_writes_them(names: list[list[tuple[str, str]]], subject: bytes) -> None:
    found = client_certificate({"subject": tuple(map(tuple, names))}, b"DER")
    assert found is not None
    assert (found.subject, found.fingerprint) == (subject, hashlib.sha256(b"DER").hexdigest().encode())
    assert grammar.value.fullmatch(found.subject)


@pytest.mark.parametrize(("described", "der"), [(None, None), ({}, b"DER"), ({"subject": ()}, None)])
def test_what_nobody_has_verified_is_none(described: dict[str, object] | None, der: bytes | None) -> None:
    assert client_certificate(described, der) is None
