"""The key of a request, for each kind of key."""
from __future__ import annotations

import time

import pytest

from prefork_lb.balance.keys import policy_key_finder
from prefork_lb.wire.head import FieldSection
from tests.unit.balance.candidates import AnyRequest


def is_trusted(address: str) -> bool:
    return address.startswith("10.")


def key(kind: str, target: bytes = b"/", client: str = "192.0.2.1", **fields: bytes) -> bytes:
    index = FieldSection([(name.replace("_", "-").encode(), value) for name, value in fields.items()])
    return policy_key_finder(kind, is_trusted)(AnyRequest(b"GET", target, client, index))


@pytest.mark.parametrize(("kind", "target", "found"), [
    ("uri", b"/a/b?c=d", b"/a/b?c=d"),
    ("uri", b"http://a.test/b?c", b"/b?c"),
    ("uri", b"http://a.test?c", b"/?c"),
    ("uri", b"http://a.test?c/d", b"/?c/d"),
    ("uri", b"http://a.test", b"/"),
    ("path", b"/a/b?c=d?e", b"/a/b"),
    ("path", b"http://a.test/b?c", b"/b"),
    ("path", b"*", b"/"),
    ("query:id", b"/?a=1&id=7&id=8", b"7"),
    ("query:id", b"/?id=%20+", b"%20+"),
    ("query:id", b"/?id", b""),
    ("query:id", b"/?xid=1&idx=2", b""),
    ("query:id", b"/id=3", b""),
])
def test_keys_of_the_target(kind: str, target: bytes, found: bytes) -> None:
    assert key(kind, target) == found


def test_keys_of_fields_and_cookies() -> None:
    assert key("header:X-Tenant", X_Tenant=b"red") == b"red"
    assert key("header:X-Tenant") == b""
    assert key("cookie:id", Cookie=b"a=1; id=7") == b"7"
    assert key("cookie:id", Cookie=b"ID=7; id=") == b""
    assert key("cookie:id") == b""


@pytest.mark.parametrize(("client", "told", "found"), [
    ("192.0.2.1", b"", b"192.0.2.1"),
    ("192.0.2.1", b"198.51.100.7", b"192.0.2.1"),  # a stranger is not believed
    ("10.0.0.1", b"198.51.100.7", b"198.51.100.7"),
    ("10.0.0.1", b"203.0.113.9, 198.51.100.7, 10.0.0.2", b"198.51.100.7"),  # what the client wrote itself does not count
    ("10.0.0.1", b"10.0.0.3,10.0.0.2", b"10.0.0.3"),
    ("10.0.0.1", b"2001:db8::1", b"2001:db8::1"),
    ("10.0.0.1", b"[2001:db8::1]:4711", b"2001:db8::1"),
    ("10.0.0.1", b"198.51.100.7:4711", b"198.51.100.7"),
    ("10.0.0.1", b"198.51.100.7, unknown", b"10.0.0.1"),
    ("10.0.0.1", b"198.51.100.7, , 10.0.0.2", b"10.0.0.2"),
    ("10.0.0.1", b"1.2.3.4" * 100, b"10.0.0.1"),
    ("", b"198.51.100.7", b""),
])
def test_the_source_is_the_client_as_trusted_proxies_tell_it(client: str, told: bytes, found: bytes) -> None:
    fields = {"X_Forwarded_For": told} if told else {}
    assert key("source", b"/", client, **fields) == found


@pytest.mark.parametrize("kind", ["source", "uri", "path", "cookie:id", "query:id"])
@pytest.mark.parametrize("piece", [b"id=", b"id&", b"&", b",", b"10.,", b"?", b"/", b"id;"])
def test_the_time_grows_with_the_length_alone(kind: str, piece: bytes) -> None:
    """A quadratic search would take minutes for this megabyte."""
    hostile = piece * (1_000_000 // len(piece))
    begin = time.process_time()
    key(kind, b"http" + hostile, "10.0.0.1", Cookie=hostile, X_Forwarded_For=hostile)
    key(kind, b"/" + hostile)
    assert time.process_time() - begin < 20
