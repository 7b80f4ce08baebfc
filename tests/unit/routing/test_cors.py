"""CORS: what browsers are told, by the Fetch standard."""
from __future__ import annotations

import pytest

from prefork_lb.routing.cors import Cors
from prefork_lb.wire.head import RequestHead

ORIGIN = b"Access-Control-Allow-Origin"


def head(origin: bytes = b"", method: bytes = b"GET", asked: bytes = b"") -> RequestHead:
    fields = [(b"Host", b"a.test")] + ([(b"Origin", origin)] if origin else [])
    return RequestHead(method, b"/", 1, fields + ([(b"Access-Control-Request-Method", asked)] if asked else []))


@pytest.mark.parametrize(("origin", "is_known"), [
    (b"https://www.example.org", True),
    (b"https://www.example.org:8443", False),
    (b"http://www.example.org", False),
    (b"https://www.example.org.evil.net", False),
    (b"https://a.example.net", True),
    (b"https://a.b.example.net", True),
    (b"https://example.net", False),
    (b"https://.example.net", False),
    (b"https://aexample.net", False),
    (b"https://evil.org/.example.net", False),
    (b"https://evil.org#.example.net", False),
    (b"https://user@evil.org:1.example.net", False),
    (b"https://*.example.net", False),
    (b"null", False),
])
def test_only_known_origins_may_come(origin: bytes, is_known: bool) -> None:
    cors = Cors(["https://www.example.org", "https://*.example.net"])
    assert cors.fields(head(origin)) == ([(ORIGIN, origin)] if is_known else []) + [(b"Vary", b"Origin")]


def test_a_preflight_is_answered() -> None:
    cors = Cors(["https://www.example.org"], ["GET", "PUT"], ["X-One", "X-Two"], ["X-Read"], True, 60)
    answer = cors.preflight(head(b"https://www.example.org", b"OPTIONS", b"PUT"))
    assert answer is not None and (answer.status, answer.body) == (204, b"")
    assert list(answer.fields) == [
        (ORIGIN, b"https://www.example.org"), (b"Access-Control-Allow-Credentials", b"true"),
        (b"Access-Control-Allow-Methods", b"GET, PUT"), (b"Access-Control-Allow-Headers", b"X-One, X-Two"),
        (b"Access-Control-Max-Age", b"60"), (b"Vary", b"Origin")]


def test_a_preflight_of_a_stranger_is_told_nothing() -> None:
    answer = Cors(["https://www.example.org"]).preflight(head(b"https://evil.net", b"OPTIONS", b"PUT"))
    assert answer is not None and (answer.status, list(answer.fields)) == (204, [(b"Vary", b"Origin")])


@pytest.mark.parametrize("request_head", [
    head(b"https://a.example", b"OPTIONS"), head(b"", b"OPTIONS", b"PUT"), head(b"https://a.example", b"GET", b"PUT")])
def test_other_requests_are_no_preflight(request_head: RequestHead) -> None:
    assert Cors(["https://a.example"]).preflight(request_head) is None


def test_a_response_says_what_may_be_read() -> None:
    cors = Cors(["https://www.example.org"], exposed=["X-Read", "X-Too"], credentials=True)
    assert cors.fields(head(b"https://www.example.org")) == [
        (ORIGIN, b"https://www.example.org"), (b"Access-Control-Allow-Credentials", b"true"),
        (b"Access-Control-Expose-Headers", b"X-Read, X-Too"), (b"Vary", b"Origin")]
    assert cors.fields(head()) == [(b"Vary", b"Origin")]


def test_where_all_may_come_a_cache_may_give_all_the_same() -> None:
    assert Cors(["*"]).fields(head(b"https://evil.net")) == Cors(["*"]).fields(head()) == [(ORIGIN, b"*")]
