"""Requests and responses as filters see and change them."""
from __future__ import annotations

import pytest

from prefork_lb.filters import Fields, Request, Response


def request(*fields: tuple[bytes, bytes], method: bytes = b"GET") -> Request:
    return Request(method, b"/a?b", b"h:80", fields, "192.0.2.1", b"http", "web", ["web", "other"])


def test_what_a_request_tells() -> None:
    seen = request((b"X-A", b"1"), (b"x-a", b"2"), (b"Cookie", b"a=1; b=2"))
    assert (seen.method, seen.target, seen.path, seen.host, seen.client, seen.scheme, seen.pool) == (
        "GET", "/a?b", "/a", "h:80", "192.0.2.1", "http", "web")
    assert (seen.fields.get("X-a"), seen.fields.all("X-A"), seen.fields.get("none"), "x-A" in seen.fields) == (
        "1", ["1", "2"], "", True)
    assert (seen.cookie("b"), seen.cookie("c")) == ("2", "")
    assert not seen.is_rewritten and not seen.fields.is_changed


def test_fields_are_written_added_and_taken_out() -> None:
    fields = Fields([(b"X-A", b"1"), (b"X-B", b"2")], of_request=False)
    fields.set("x-a", "3")
    fields.add("X-A", "4")
    fields.remove("X-B")
    assert list(fields) == [("x-a", "3"), ("X-A", "4")] and fields.is_changed


def test_no_spelling_of_a_name_survives_in_a_request() -> None:
    """CGI and WSGI servers take X_User for X-User."""
    fields = Fields([(b"X_User", b"admin"), (b"x-user", b"admin")], of_request=True)
    fields.set("X-User", "me")
    assert list(fields) == [("X-User", "me")]


@pytest.mark.parametrize(("name", "value"), [
    ("X Y", "1"), ("", "1"), ("X", "a\r\nY: 1"), ("X", " 1"), ("X", "\0"), ("X", "\u20ac"), ("Content-Length", "1"),
    ("Transfer-Encoding", "chunked"), ("connection", "X"), ("Host", "h"), ("Via", "1"), ("X-Forwarded-For", "192.0.2.9"),
    ("Forwarded", "for=x"), ("X_Forwarded_For", "192.0.2.9"),
])
def test_what_no_filter_may_write(name: str, value: str) -> None:
    fields = Fields([], of_request=True)
    with pytest.raises(ValueError):
        fields.set(name, value)
    with pytest.raises(ValueError):
        fields.add(name, value)
    assert not fields.is_changed


@pytest.mark.parametrize(("name", "value"), [
    ("target", "a"), ("target", "/a b"), ("target", "/a#b"), ("target", "/\r\n"), ("target", "http://x/"), ("host", ""),
    ("host", "a/b"), ("host", "a,b"), ("pool", "none"), ("method", "G T"), ("method", "HEAD"), ("method", "CONNECT"),
    ("method", ""),
])
def test_what_a_request_cannot_become(name: str, value: str) -> None:
    seen = request()
    with pytest.raises(ValueError):
        setattr(seen, name, value)
    assert not seen.is_rewritten and seen.pool == "web"


def test_a_head_stays_one_since_its_answer_has_no_body() -> None:
    seen = request(method=b"HEAD")
    with pytest.raises(ValueError):
        seen.method = "GET"
    seen.method = "HEAD"


def test_what_a_request_can_become() -> None:
    seen = request()
    seen.method, seen.target, seen.host, seen.pool = "POST", "/c?d=%20", "[::1]:8", "other"
    assert (seen.method, seen.target, seen.host, seen.pool, seen.is_rewritten) == ("POST", "/c?d=%20", "[::1]:8", "other", True)


def test_a_status_changes_only_among_those_with_content() -> None:
    response = Response(200, [], "a:1")
    response.status = 503
    assert response.status == 503
    for status in (101, 204, 304, 99, 600):
        with pytest.raises(ValueError):
            response.status = status
    with pytest.raises(ValueError):
        Response(304, [], "a:1").status = 200
