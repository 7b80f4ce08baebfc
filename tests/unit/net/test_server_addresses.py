"""Addresses: what is accepted, that every address has one spelling, and what the errors say."""
from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest

from prefork_lb.net.address import Address, parse_address, unmapped
from tests.support.certificates import make_pair, needs_openssl
from tests.support.tls import believing


@pytest.mark.parametrize(("text", "address", "spelling"), [
    ("10.0.0.1:8001", Address("10.0.0.1", 8001), "10.0.0.1:8001"),
    ("App-1.Example.ORG:80", Address("app-1.example.org", 80), "app-1.example.org:80"),
    ("[2001:DB8:0:0::1]:80", Address("2001:db8::1", 80), "[2001:db8::1]:80"),
    ("[::ffff:10.0.0.1]:80", Address("::ffff:10.0.0.1", 80), None),
    ("http://app:8001", Address("app", 8001), "app:8001"),
    ("http://app", Address("app", 80), "app:80"),
    ("HTTPS://App", Address("app", 443, tls=True), "https://app:443"),
    ("https://[::1]:8443", Address("::1", 8443, tls=True), "https://[::1]:8443"),
    ("unix:/run/app.sock", Address(path="/run/app.sock"), "unix:/run/app.sock"),
])
def test_what_is_an_address(text: str, address: Address, spelling: str | None) -> None:
    found = parse_address(text)
    if spelling is None:  # ipaddress writes mapped addresses with dots from 3.13 on
        assert found.host.startswith("::ffff:") and found.port == address.port
        return
    assert found == address and str(found) == spelling
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(("text", "complaint"), [
    ("10.0.0.1", "has no port; expected HOST:PORT, as in 10.0.0.1:8001"),
    ("10.0.0.1:", "is no port"),
    ("10.0.0.1:080", "is no port; expected a number in 1..65535"),
    ("10.0.0.1:0", "is no port"),
    ("10.0.0.1:65536", "is no port"),
    ("10.0.0.256:80", "neither an IP address nor a host name"),
    ("::1:80", "looks like an IPv6 address without brackets"),
    ("[::1", "no IPv6 address in its brackets"),
    ("[fe80::1%eth0]:80", "has a zone"),
    ("[10.0.0.1]:80", "no IPv6 address in its brackets"),
    ("a-.example:80", "neither an IP address nor a host name"),
    ("-a.example:80", "neither an IP address nor a host name"),
    ("a b:80", "neither an IP address nor a host name"),
    ("https://app/path", "without path or user"),
    ("https://user@app", "without path or user"),
    ("https://", "neither an IP address nor a host name"),
    ("ftp://app:21", "looks like an IPv6 address"),
    ("unix:relative.sock", "absolute path of at most 107 bytes"),
    ("unix:/run/a\nb", "absolute path"),
    ("unix:/" + "x" * 107, "absolute path"),
])
def test_what_is_none(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        parse_address(text)


@pytest.mark.parametrize(("told", "meant"), [
    ("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("::ffff:0:a:b", "::ffff:0:a:b"), ("", ""),
])
def test_an_ipv4_address_in_the_form_of_ipv6_is_one(told: str, meant: str) -> None:
    assert unmapped(told) == meant


@needs_openssl
@pytest.mark.parametrize("text", ["https://App.Example:1", "https://app.example.:1"])
def test_a_certificate_is_good_for_a_name_with_a_dot_at_its_end(text: str, tmp_path: Path) -> None:
    """OpenSSL finds no certificate good for "app.example.", and servers would not know the name."""
    pair = make_pair(tmp_path, "app", "app.example")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pair.certificate, pair.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = believing(pair).wrap_bio(to_client, to_server, server_hostname=parse_address(text).tls_name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(2):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.version()
