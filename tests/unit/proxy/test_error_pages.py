"""Error pages: in the form asked for, and nothing of the inside."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Sequence

import pytest

from prefork_lb import errors
from prefork_lb.errors import (
    BadRequest,
    ConnectFailed,
    FinalRecipient,
    MethodNotAllowed,
    NoUsableServer,
    OwnAnswer,
    ProxyError,
    ResponseTimeout,
    UpstreamError,
)
from prefork_lb.proxy.error_pages import error_page, reason
from prefork_lb.proxy.tracing import Identity
from prefork_lb.routing.serving import OwnPages, Page
from prefork_lb.wire.accept import preferred

SECRET = "10.0.0.1:8001 <script>alert(1)</script>"
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ProxyError) and kind not in (FinalRecipient, OwnAnswer)
]


def page(error: ProxyError, accept: str) -> tuple[dict[bytes, bytes], str]:
    fields, body = error_page(error, accept)
    assert len(dict(fields)) == len(fields)
    return dict(fields), body.decode()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", b"text/plain"),
        ("*/*", b"text/plain"),
        ("text/plain", b"text/plain"),
        ("text/*", b"text/plain"),
        ("text/html", b"text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", b"text/html"),
        ("application/json", b"application/json"),
        ("application/*", b"application/json"),
        ("text/html;q=0.5, application/json", b"application/json"),
        ("text/plain;q=0.1, text/html;q=0.2", b"text/html"),
        ("text/plain;q=0, application/json;q=0.1", b"application/json"),
        ("TEXT/HTML", b"text/html"),
        ("image/png", b"text/plain"),
        ("text/plain;q=0", b"text/plain"),
        ("nonsense", b"text/plain"),
        (";;;q=,,,", b"text/plain"),
        ("\xff\x00", b"text/plain"),
    ],
)
def test_the_form_follows_accept(accept: str, kind: bytes) -> None:
    fields, text = page(ConnectFailed(SECRET), accept)
    assert fields[b"Content-Type"].partition(b";")[0] == kind
    assert ("<html" in text) is (kind == b"text/html")
    assert text.startswith("{") is (kind == b"application/json")


def test_of_a_long_accept_the_first_members_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole worker waits while a field of 32 KiB is read."""
    parsed: list[str] = []

    def read(accept: str, types: Sequence[str]) -> str:
        parsed.append(accept)
        return preferred(accept, types)

    monkeypatch.setattr("prefork_lb.proxy.error_pages.preferred", read)
    assert page(BadRequest(SECRET), "application/json," + "a/b," * 8000)[0][b"Content-Type"] == b"application/json"
    assert page(BadRequest(SECRET), "a/b," * 8000 + "application/json")[0][b"Content-Type"].startswith(b"text/plain")
    assert page(BadRequest(SECRET), "text/html;x=" + "y" * 8000)[0][b"Content-Type"].startswith(b"text/plain")
    assert parsed and max(map(len, parsed)) < 600


@pytest.mark.parametrize("accept", ["text/plain", "text/html", "application/json"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_short_page_without_its_message(kind: type[ProxyError], accept: str) -> None:
    fields, text = page(kind(SECRET), accept)
    assert "10.0.0.1" not in text and "script" not in text
    assert str(kind.status) in text and reason(kind.status) in text
    assert int(fields[b"Content-Length"]) == len(text.encode()) < 500
    assert fields[b"Cache-Control"] == b"no-store"
    if issubclass(kind, UpstreamError):
        assert kind.phase in text


@pytest.mark.parametrize("accept", ["text/plain", "text/html", "application/json"])
def test_a_servers_failure_names_its_phase(accept: str) -> None:
    assert "connect" in page(ConnectFailed(SECRET), accept)[1]
    assert "response" in page(ResponseTimeout(SECRET), accept)[1]


def test_other_failures_name_none() -> None:
    assert page(BadRequest(SECRET), "text/plain")[1] == "400 Bad Request\n"
    assert page(NoUsableServer(SECRET), "text/plain")[1] == "503 Service Unavailable\n"


def test_json_is_complete() -> None:
    assert json.loads(page(ResponseTimeout(SECRET), "application/json")[1]) == {
        "status": 504,
        "error": "Gateway Timeout",
        "phase": "response",
    }
    assert json.loads(page(BadRequest(SECRET), "application/json")[1]) == {"status": 400, "error": "Bad Request"}


def test_a_refused_method_tells_the_allowed_ones() -> None:
    assert b"GET" in page(MethodNotAllowed("TRACE"), "")[0][b"Allow"]
    assert b"TRACE" not in page(MethodNotAllowed("TRACE"), "")[0][b"Allow"]
    assert b"Allow" not in page(BadRequest("x"), "")[0]


def test_an_answer_of_our_own_to_options_has_no_page() -> None:
    fields, text = page(FinalRecipient("OPTIONS"), "")
    assert text == ""
    assert b"Content-Length" not in fields  # RFC 9110 8.6: never with 204
    assert b"OPTIONS" in fields[b"Allow"]


def test_a_status_without_a_phrase_has_one_all_the_same() -> None:
    assert (reason(404), reason(499), reason(799)) == ("Not Found", "Error", "Error")


@pytest.mark.parametrize("seed", range(10))
def test_no_accept_field_breaks_a_page(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = [
        "text/html",
        "application/json",
        "*",
        "/",
        "*/*",
        ";",
        "q=",
        "0.5",
        "=",
        '"',
        "\\",
        ",",
        " ",
        "\t",
        "é",
        "x" * 50,
        "1e9",
        "-1",
        "nan",
    ]
    for _ in range(200):
        fields, body = error_page(ConnectFailed("x"), "".join(rng.choices(alphabet, k=rng.randrange(12))))
        assert int(dict(fields)[b"Content-Length"]) == len(body)


@pytest.mark.parametrize(("status", "length"), [(200, b"4"), (503, b"4"), (204, None), (304, None)])
def test_an_answer_of_a_route_is_as_the_route_says(status: int, length: bytes | None) -> None:
    body = b"" if length is None else b"text"
    fields, found = error_page(OwnAnswer(status, [(b"X-Own", b"1")], body), "text/html")
    assert found == body
    assert dict(fields) == {b"X-Own": b"1"} | ({b"Content-Length": length} if length else {})


def test_a_page_of_the_site_stands_in_the_place_of_ours_and_keeps_what_clients_go_by() -> None:
    page = Page([(b"Content-Type", b"text/html; charset=utf-8")], b"<p>later")
    own = OwnPages({429: page, 502: page, 503: page}, [(b"X-Own", b"1")])
    fields, body = error_page(NoUsableServer("x"), "application/json", Identity(b"abc", None, b""), own)
    assert body == b"<p>later"
    assert dict(fields) == {b"Content-Type": b"text/html; charset=utf-8", b"Content-Length": b"8", b"Cache-Control": b"no-store",
                            b"Retry-After": b"%d" % NoUsableServer.retry_after_s, b"X-Request-ID": b"abc", b"X-Own": b"1"}
    fields, body = error_page(ResponseTimeout("x"), "", None, own)
    assert body == error_page(ResponseTimeout("x"), "")[1] and (b"X-Own", b"1") in fields
    fields, body = error_page(OwnAnswer(503, [], b"own"), "", None, own)
    assert body == b"own" and (b"X-Own", b"1") in fields, "the route has said what it answers"
