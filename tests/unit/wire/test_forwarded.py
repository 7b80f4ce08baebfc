"""What a server is told about the client."""

from __future__ import annotations

import pytest

from prefork_lb.errors import BadRequest
from prefork_lb.wire.forwarded import ClientInfo, client_scheme, forwarded_lines, is_told_by_proxies, times_passed, via
from prefork_lb.wire.head import Fields, FieldSection, HeadLimits
from prefork_lb.wire.parse import parse_fields


def told(client: ClientInfo, *fields: tuple[bytes, bytes], host: bytes | None = b"a.test") -> Fields:
    """The fields that the server sees."""
    lines = forwarded_lines(FieldSection(fields), client, host)
    return sorted(parse_fields(lines + b"\r\n", 0, HeadLimits(), BadRequest, BadRequest))


def client(address: str = "192.0.2.7", scheme: bytes = b"http", port: int = 8000, trusted: bool = False) -> ClientInfo:
    return ClientInfo(address, scheme, port, trusted)


OWN = [
    (b"Forwarded", b'for=192.0.2.7;proto=http;host="a.test"'),
    (b"X-Forwarded-For", b"192.0.2.7"),
    (b"X-Forwarded-Host", b"a.test"),
    (b"X-Forwarded-Port", b"8000"),
    (b"X-Forwarded-Proto", b"http"),
]
CLAIMS = (
    (b"X-Forwarded-For", b"10.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"X-Forwarded-Host", b"evil.test"),
    (b"X-Forwarded-Port", b"1"),
    (b"X-Forwarded-Prefix", b"/admin"),
    (b"Forwarded", b"for=10.0.0.1"),
    (b"X-Real-IP", b"10.0.0.1"),
)


def test_a_stranger_is_described() -> None:
    assert told(client()) == OWN


def test_what_a_stranger_says_is_dropped() -> None:
    assert told(client(), *CLAIMS) == OWN


@pytest.mark.parametrize("name", [name.lower() for name, _ in CLAIMS])
def test_what_proxies_tell_is_written_anew(name: bytes) -> None:
    assert is_told_by_proxies(name)


@pytest.mark.parametrize("name", [b"x-forward", b"x-forwarded", b"x-real-ipx", b"forwarded-for", b"via", b"host"])
def test_other_fields_are_not(name: bytes) -> None:
    assert not is_told_by_proxies(name)


def test_a_trusted_proxy_is_believed_and_extended() -> None:
    assert told(client(trusted=True), *CLAIMS) == [
        (b"Forwarded", b'for=10.0.0.1, for=192.0.2.7;proto=http;host="a.test"'),
        (b"X-Forwarded-For", b"10.0.0.1, 192.0.2.7"),
        (b"X-Forwarded-Host", b"evil.test"),
        (b"X-Forwarded-Port", b"1"),
        (b"X-Forwarded-Prefix", b"/admin"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Real-Ip", b"10.0.0.1"),
    ]


def test_a_trusted_proxy_that_says_nothing_is_described_like_a_stranger() -> None:
    assert told(client(trusted=True)) == OWN


def test_what_a_trusted_proxy_leaves_out_is_added() -> None:
    fields = told(client(trusted=True), (b"X-Forwarded-Proto", b"https"))
    assert fields == [(name, b"https" if name == b"X-Forwarded-Proto" else value) for name, value in OWN]


def test_several_lines_of_a_chain_become_one_and_empty_ones_vanish() -> None:
    fields = dict(
        told(
            client(trusted=True),
            (b"X-Forwarded-For", b"1.1.1.1"),
            (b"X-Forwarded-For", b""),
            (b"X-Forwarded-For", b"2.2.2.2, 3.3.3.3"),
            (b"Forwarded", b""),
            (b"Forwarded", b"for=1.1.1.1"),
        )
    )
    assert fields[b"X-Forwarded-For"] == b"1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7"
    assert fields[b"Forwarded"] == b'for=1.1.1.1, for=192.0.2.7;proto=http;host="a.test"'


def test_an_ipv6_address_stands_in_brackets_and_quotes_where_it_must() -> None:
    fields = dict(told(client("2001:db8::7"), host=b"[::1]:8000"))
    assert fields[b"X-Forwarded-For"] == b"2001:db8::7"
    assert fields[b"Forwarded"] == b'for="[2001:db8::7]";proto=http;host="[::1]:8000"'


def test_a_client_of_a_unix_socket_is_unknown() -> None:
    assert told(client("", port=0)) == [
        (b"Forwarded", b'for=unknown;proto=http;host="a.test"'),
        (b"X-Forwarded-For", b"unknown"),
        (b"X-Forwarded-Host", b"a.test"),
        (b"X-Forwarded-Proto", b"http"),
    ]


def test_the_scheme_of_the_connection_is_told() -> None:
    fields = dict(told(client(scheme=b"https", port=443)))
    assert (fields[b"X-Forwarded-Proto"], fields[b"X-Forwarded-Port"]) == (b"https", b"443")
    assert b";proto=https;" in fields[b"Forwarded"]


@pytest.mark.parametrize("host", [None, b""])
def test_without_a_host_none_is_told(host: bytes | None) -> None:
    assert told(client(), host=host) == [
        (b"Forwarded", b"for=192.0.2.7;proto=http"),
        (b"X-Forwarded-For", b"192.0.2.7"),
        (b"X-Forwarded-Port", b"8000"),
        (b"X-Forwarded-Proto", b"http"),
    ]


def test_via_is_extended_and_names_the_version_received() -> None:
    assert via(FieldSection([]), 1, b"lb") == b"1.1 lb"
    assert via(FieldSection([]), 0, b"lb") == b"1.0 lb"
    fields = FieldSection([(b"Via", value) for value in (b"1.0 a, 1.1 b", b"", b"2 c")])
    assert via(fields, 1, b"lb") == b"1.0 a, 1.1 b, 2 c, 1.1 lb"


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([], 0),
        ([b"1.1 other"], 0),
        ([b"1.1 lb"], 1),
        ([b"1.1 LB (comment)"], 1),
        ([b"1.1 lb, 1.0 x", b"HTTP/1.1 lb"], 2),
        ([b"lb"], 0),
        ([b""], 0),
        ([b"1.1 lbx"], 0),
    ],
)
def test_passes_are_counted_by_the_name_in_via(values: list[bytes], times: int) -> None:
    assert times_passed(FieldSection([(b"Via", value) for value in values]), b"lb") == times


@pytest.mark.parametrize(("scheme", "trusted", "told_proto", "expected"), [
    (b"http", False, [], b"http"), (b"https", False, [], b"https"), (b"http", False, [b"https"], b"http"),
    (b"http", True, [b"https"], b"https"), (b"https", True, [b"HTTP , https"], b"http"),
    (b"http", True, [b"ws", b"https"], b"https")])
def test_what_the_client_speaks_is_told_by_trusted_proxies_alone(scheme: bytes, trusted: bool, told_proto: list[bytes],
                                                                  expected: bytes) -> None:
    assert client_scheme({b"x-forwarded-proto": told_proto}, client(scheme=scheme, trusted=trusted)) == expected
