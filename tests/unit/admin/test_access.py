"""Who may read and who may change, and which pages may make a browser do it."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.shared.scaling_state import Mode, Scaling, write_scaling
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table_lookup import pool_number
from tests.unit.admin.interface import OPERATOR, READER, Interface

OPEN = ("/", "/static/<name>", "/healthz", "/readyz")
SESSION = "/api/v1/session"
NOBODY = {"role": None, "name": "", "csrf": ""}


def filled(path: str) -> str:
    return (path.replace("<name>", "web" if "pools" in path else "index.html").replace("<path:address>", "127.0.0.1:8001"))


def test_without_a_token_nothing_is_read_and_nothing_changed(guarded: Interface) -> None:
    for endpoint in guarded.application.endpoints.all:
        if endpoint.path in (*OPEN, SESSION):
            continue
        for token in ("", "wrong-0123456789", OPERATOR[:-1], OPERATOR + "x"):
            answer = guarded.ask(filled(endpoint.path), endpoint.method, token, json={} if endpoint.method != "GET" else None)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), endpoint
            assert "8001" not in answer.text and "web" not in answer.text
            assert guarded.ask(SESSION, token=token).json == NOBODY


def test_readiness_needs_no_token_and_names_nothing_without(guarded: Interface) -> None:
    with guarded.ledger.locked():
        for slot in guarded.slots["web"]:
            States(guarded.segment).set_admin(slot, Admin.DRAIN)
    assert guarded.ask("/readyz").status_code == 200
    guarded.publisher.look()
    assert [guarded.ask("/readyz").status_code, guarded.ask("/readyz").text] == [503, "no usable server\n"]
    assert guarded.ask("/readyz", token=READER).text == "no usable server: web\n"
    assert guarded.ask("/healthz").status_code == 200


def test_a_pool_that_its_rule_has_scaled_to_none_is_ready(guarded: Interface) -> None:
    """A request starts its first server, so that a balancer in front must go on to send some."""
    with guarded.ledger.locked():
        for slot in guarded.slots["web"]:
            States(guarded.segment).set_admin(slot, Admin.DRAIN)
    number = pool_number(guarded.segment, "web")
    assert number is not None
    for mode, wanted, status in ((Mode.AUTO, 0, 200), (Mode.AUTO, 1, 503), (Mode.FIXED, 0, 503)):
        with guarded.ledger.locked():
            write_scaling(guarded.segment, number, Scaling(mode, 4, wanted, 0, 0, 0, "why"))
        guarded.publisher.look()
        assert guarded.ask("/readyz").status_code == status, (mode, wanted)


@pytest.mark.parametrize("authorization", [f"bearer {READER}", f"Bearer {READER}", f"BEARER   {READER} "])
def test_a_reader_reads(guarded: Interface, authorization: str) -> None:
    assert guarded.ask("/api/v1/instance", headers={"Authorization": authorization}).status_code == 200


@pytest.mark.parametrize("authorization", [f"Basic {READER}", READER, "Bearer", "Bearer ", "Bearer é" + READER])
def test_other_words_are_no_token(guarded: Interface, authorization: str) -> None:
    assert guarded.ask("/api/v1/instance", headers={"Authorization": authorization}).status_code == 401


def test_the_file_of_tokens_is_read_again_when_it_changes(guarded: Interface, tmp_path: Path,
                                                          caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tokens"
    assert guarded.ask("/api/v1/instance", token=READER).status_code == 200
    file.write_text("reader another-0123456789\n")
    assert guarded.ask("/api/v1/instance", token=READER).status_code == 401
    assert guarded.ask("/api/v1/instance", token="another-0123456789").status_code == 200
    file.write_text("nonsense\n")
    assert guarded.ask("/api/v1/instance", token="another-0123456789").status_code == 200
    os.unlink(file)
    assert guarded.ask("/api/v1/instance", token="another-0123456789").status_code == 200
    assert caplog.text.count("stay in force") == 2 and "another" not in caplog.text


# -- hosts and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:9900", 200), ("127.0.0.1", 200), ("localhost:9900", 200), ("LOCALHOST", 200), ("127.7.7.7:1", 200),
    ("[::1]:9900", 200), ("lb.example:9900", 200), ("lb.example.", 200),
    ("evil.example", 421), ("evil.example:9900", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example", 421),
    ("10.0.0.1", 421), ("", 421), ("localhost@evil.example", 421), ("evil.example, localhost", 421),
    ("[::1", 421), ("localhost/evil", 421),
])
def test_a_foreign_name_gets_nothing(new_interface: Callable[..., Interface], host: str, status: int) -> None:
    """A page whose name was pointed at this address has its own name in Host."""
    interface = new_interface(hosts=("lb.example",))
    for path in ("/", "/api/v1/instance", "/healthz"):
        assert interface.ask(path, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(("bind", "host", "status"), [
    ("0.0.0.0:9900", "10.0.0.1:9900", 200), ("[::]:9900", "[2001:db8::1]:9900", 200), ("0.0.0.0:9900", "evil.example", 421),
    ("10.0.0.1:9900", "10.0.0.1:9900", 200), ("10.0.0.1:9900", "10.0.0.2:9900", 421), ("10.0.0.1:9900", "127.0.0.1", 421),
    ("unix:/run/admin", "localhost", 200), ("unix:/run/admin", "evil.example", 421), ("lb.example:9900", "lb.example", 200),
])
def test_the_names_of_a_listener_are_those_of_its_address(new_interface: Callable[..., Interface], bind: str, host: str,
                                                          status: int) -> None:
    assert new_interface(bind=bind).ask("/healthz", headers={"Host": host}).status_code == status


CROSS: list[dict[str, Any]] = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:8000"}, {"Origin": "http://localhost:9900"},
    {"Origin": "http://127.0.0.1:9900.evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:9900", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},  # a form
]


@pytest.mark.parametrize("headers", CROSS)
def test_a_page_of_another_origin_changes_nothing(interface: Interface, headers: dict[str, str]) -> None:
    csrf = interface.ask(SESSION).json["csrf"]
    for endpoint in interface.application.endpoints.all:
        if endpoint.method != "GET":
            answer = interface.ask(filled(endpoint.path), endpoint.method, json={}, headers=headers | {"X-CSRF-Token": csrf})
            assert answer.status_code == 403, endpoint


def test_a_page_of_another_origin_may_link_here_and_no_more(interface: Interface) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert interface.ask("/", headers=cross | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert interface.ask("/api/v1/stream", headers=cross | {"Sec-Fetch-Mode": "cors"}).status_code == 403


# -- browsers ---------------------------------------------------------------------------------------------------------


def signed_in(interface: Interface, token: str) -> tuple[dict[str, str], str]:
    """The field with the cookie of a new session, and its CSRF token."""
    answer = interface.ask(SESSION, "POST", json={"token": token}, headers={"Origin": "http://127.0.0.1:9900"})
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/api/v1/" in cookie and token not in cookie
    return {"Cookie": cookie.partition(";")[0]}, answer.json["csrf"]


def test_a_browser_signs_in_by_token_and_has_its_role(guarded: Interface) -> None:
    cookie, csrf = signed_in(guarded, OPERATOR)
    assert guarded.ask(SESSION, headers=cookie).json == {"role": "operator", "name": "ann", "csrf": csrf}
    assert guarded.ask("/api/v1/instance", headers=cookie).status_code == 200
    assert guarded.ask(SESSION, "POST", json={"token": "wrong-0123456789"}).status_code == 401
    for wrong in ({"Cookie": "prefork_lb_admin=nonsense"}, {"Cookie": cookie["Cookie"][:-1]}):
        assert guarded.ask(SESSION, headers=wrong).json == NOBODY
        assert guarded.ask("/api/v1/instance", headers=wrong).status_code == 401
    reader, _ = signed_in(guarded, READER)
    assert guarded.ask(SESSION, headers=reader).json["role"] == "reader"
    ended = guarded.ask(SESSION, "DELETE", headers=cookie)
    assert ended.status_code == 204 and "Max-Age=0" in ended.headers["Set-Cookie"]


def test_a_token_that_is_taken_out_ends_its_sessions(guarded: Interface, tmp_path: Path) -> None:
    cookie, _ = signed_in(guarded, OPERATOR)
    (tmp_path / "tokens").write_text(f"reader {READER}\n")
    assert guarded.ask(SESSION, headers=cookie).json == NOBODY
    assert guarded.ask("/api/v1/instance", headers=cookie).status_code == 401


@pytest.mark.parametrize(("body", "kind", "status"), [
    (b"{", "application/json", 400), (b"[]", "application/json", 400), (b'{"token": 1}', "application/json", 400),
    (b'{"token": "a", "more": 1}', "application/json", 400), (b"\xff", "application/json", 400),
    (b"[" * 20000, "application/json", 400), (b"token=a", "application/x-www-form-urlencoded", 415), (b"{}", "", 415),
    (b'"' + b"a" * 70000 + b'"', "application/json", 413),
])
def test_a_body_that_is_none_is_told(guarded: Interface, body: bytes, kind: str, status: int) -> None:
    answer = guarded.ask(SESSION, "POST", data=body, headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.mimetype, answer.json["status"]) == (status, "application/problem+json", status)


def test_every_answer_has_the_fields_that_keep_browsers_in_order(guarded: Interface) -> None:
    for path in ("/", "/nothing", "/api/v1/instance", "/healthz", "/static/none"):
        fields = guarded.ask(path).headers
        policy = fields["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert (fields["X-Content-Type-Options"], fields["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert fields["Cache-Control"] == "no-store" or path == "/"
