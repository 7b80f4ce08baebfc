"""What a limit tells requests apart by."""
from __future__ import annotations

import pytest

from prefork_lb.net.networks import lies_in
from prefork_lb.routing.limit_keys import limit_key_finder
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request

HEAD = parse_request(b"GET /a?b=c&b=d HTTP/1.1\r\nHost: h\r\nX-Key: one\r\nX-Key: two\r\nCookie: x=1; y=2\r\n\r\n", HeadLimits())
PEER, NOBODY = ClientInfo("192.0.2.1", b"http", 80, False), lies_in(())


@pytest.mark.parametrize(("key", "expected"), [
    ("path", b"/a"), ("header:x-key", b"one"), ("header:X-None", b""), ("cookie:y", b"2"), ("cookie:z", b""), ("query:b", b"c"),
    ("query:z", b""),
])
def test_a_key_of_a_request(key: str, expected: bytes) -> None:
    assert limit_key_finder(key)(Facts(HEAD, HEAD.target, "h", (), PEER, NOBODY)) == expected


@pytest.mark.parametrize(("one", "two", "are_one"), [
    ("192.0.2.1", "192.0.2.2", False),
    ("192.0.2.1", "::ffff:192.0.2.1", True),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),  # one host can take any address of its /64
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("fe80::1%eth0", "fe80::2%eth1", True),
    ("", "192.0.2.1", False),
])
def test_clients_as_limits_know_them(one: str, two: str, are_one: bool) -> None:
    peers = [ClientInfo(client, b"http", 80, False) for client in (one, two)]
    keys = [limit_key_finder("source")(Facts(HEAD, b"/", "h", (), peer, NOBODY)) for peer in peers]
    assert (keys[0] == keys[1]) is are_one
