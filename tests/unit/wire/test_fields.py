"""Which fields travel on."""

from __future__ import annotations

import pytest

from prefork_lb.wire.fields import FORBIDDEN_IN_TRAILERS, HOP_BY_HOP, allowed_trailers, nominated
from prefork_lb.wire.head import FieldSection


def options(*values: bytes) -> frozenset[bytes]:
    return nominated(FieldSection([(b"Connection", value) for value in values]))


def test_nothing_is_nominated_without_connection() -> None:
    assert nominated({}) == frozenset()


@pytest.mark.parametrize("value", [b"close", b"keep-alive", b"Keep-Alive"])
def test_plain_options_nominate_nothing(value: bytes) -> None:
    assert options(value) == frozenset()


def test_named_fields_are_nominated_over_all_values_in_lower_case() -> None:
    assert options(b"close, X-Hop", b" ,x-other ,") == {b"close", b"x-hop", b"x-other"}


@pytest.mark.parametrize(
    "name",
    [
        b"Host",
        b"Content-Length",
        b"Authorization",
        b"Cookie",
        b"Set-Cookie",
        b"Cache-Control",
        b"Via",
        b"Forwarded",
        b"X-Forwarded-For",
        b"x-forwarded-host",
        b"X-Forwarded-Anything",
        b"X-Real-IP",
        b"Content-Type",
        b"Expect",
        b"Range",
    ],
)
def test_fields_for_framing_routing_and_security_cannot_be_taken_away(name: bytes) -> None:
    assert options(b"close, " + name) == {b"close"}


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"http2-settings",
    ],
)
def test_fields_of_one_connection_stop_here(name: bytes) -> None:
    assert name in HOP_BY_HOP
    assert name in FORBIDDEN_IN_TRAILERS


@pytest.mark.parametrize(
    "name",
    [
        # RFC 9110 6.5.1 with the list of RFC 7230 4.1.2: framing, routing, request modifiers, authentication,
        # response control data, how to read the content; and what tells of the client.
        b"Content-Length",
        b"Transfer-Encoding",
        b"Host",
        b"Cache-Control",
        b"Expect",
        b"Max-Forwards",
        b"Pragma",
        b"Range",
        b"TE",
        b"If-Match",
        b"If-None-Match",
        b"If-Modified-Since",
        b"If-Unmodified-Since",
        b"If-Range",
        b"Authorization",
        b"Proxy-Authorization",
        b"WWW-Authenticate",
        b"Set-Cookie",
        b"Cookie",
        b"Age",
        b"Date",
        b"Expires",
        b"Location",
        b"Retry-After",
        b"Vary",
        b"Content-Encoding",
        b"Content-Type",
        b"Content-Range",
        b"Trailer",
        b"Connection",
        b"Via",
        b"X-Forwarded-For",
        b"X-FORWARDED-PROTO",
        b"Forwarded",
        b"X-Real-IP",
    ],
)
def test_fields_that_must_come_first_are_no_trailers(name: bytes) -> None:
    assert allowed_trailers([(name, b"1")]) == []


def test_other_trailers_travel_on_in_order() -> None:
    fields = [(b"X-Sum", b"1"), (b"ETag", b"2"), (b"X-Sum", b"3"), (b"Server-Timing", b"4")]
    assert allowed_trailers(fields) == fields
