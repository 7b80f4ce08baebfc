"""Another server that decides: what it is asked, what follows from its answer, and what is remembered."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from prefork_lb.access.forward import ForwardAuth
from prefork_lb.clock import ManualClock
from prefork_lb.errors import OwnAnswer, Undecided
from prefork_lb.filters.http import NO_FIELDS, HTTPAnswer, NoAnswer
from prefork_lb.filters.message import Fields
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead

Pairs = Sequence[tuple[bytes, bytes]]
PROXY = ClientInfo("10.0.0.1", b"http", 80, True)


def facts(*fields: tuple[bytes, bytes], target: bytes = b"/a?b=c", method: bytes = b"POST") -> Facts:
    head = RequestHead(method, target, 1, [(b"Host", b"a.test:81"), *fields])
    return Facts(head, target, "a.test", (), PROXY, lambda address: address == "10.0.0.1")


class Server:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, status: int = 200, fields: Pairs = (), body: bytes = b"") -> None:
        self.answer: HTTPAnswer | None = HTTPAnswer(status, Fields(fields, of_request=False), body)
        self.asked: list[dict[str, str]] = []

    def get(self, url: str, fields: Mapping[str, str] = NO_FIELDS, timeout_s: float = 1.0) -> HTTPAnswer:
        assert (url, timeout_s) == ("http://auth.test/", 2.0)
        self.asked.append(dict(fields))
        if self.answer is None:
            raise NoAnswer("it hangs")
        return self.answer

    def request(self, method: str, url: str, fields: Mapping[str, str] = NO_FIELDS, body: bytes = b"",
                timeout_s: float = 1.0) -> HTTPAnswer:
        raise NotImplementedError


def guard(server: Server, *fields: str, cache: float = 0.0, clock: ManualClock | None = None) -> ForwardAuth:
    return ForwardAuth(server, "http://auth.test/", fields, 2.0, cache, clock or ManualClock())


def test_it_is_asked_with_the_fields_of_the_request_and_what_was_asked_for() -> None:
    server = Server()
    guard(server)(facts((b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"Accept", b"x"), (b"Accept", b"y"), (b"X_Y", b"1")))
    assert server.asked == [{
        "cookie": "a=1; b=2", "accept": "x, y", "x_y": "1", "X-Forwarded-Method": "POST", "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "a.test:81", "X-Forwarded-Uri": "/a?b=c", "X-Forwarded-For": "10.0.0.1"}]


@pytest.mark.parametrize("field", [
    (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Expect", b"100-continue"), (b"Range", b"bytes=0-1"),
    (b"If-None-Match", b"x"), (b"Via", b"x"), (b"X-Forwarded-Uri", b"/other"), (b"X_Forwarded_Uri", b"/other"),
    (b"X-Forwarded-Method", b"GET"), (b"Forwarded", b"for=1.2.3.4"), (b"X-Real-IP", b"1.2.3.4"), (b"Remote-User", b"root"),
    (b"Remote_User", b"root")])
def test_what_belongs_to_the_connection_or_would_lie_is_left_out(field: tuple[bytes, bytes]) -> None:
    server = Server()
    guard(server, "Remote-User")(facts(field))
    asked, = server.asked
    assert field[0].decode().lower() not in asked
    assert (asked["X-Forwarded-Uri"], asked["X-Forwarded-Method"]) == ("/a?b=c", "POST")


def test_the_client_is_the_one_that_trusted_proxies_tell_of() -> None:
    server = Server()
    guard(server)(facts((b"X-Forwarded-For", b"6.6.6.6, 192.0.2.7"), (b"Connection", b"X-Token"), (b"X-Token", b"1")))
    assert server.asked[0]["X-Forwarded-For"] == "192.0.2.7" and "x-token" not in server.asked[0]


def test_fields_of_a_pass_go_to_the_server() -> None:
    server = Server(204, [(b"remote-user", b"ann"), (b"Remote-Groups", b"a"), (b"Remote-Groups", b"b"), (b"Set-Cookie", b"x")])
    passed = guard(server, "Remote-User", "Remote-Groups", "Remote-Name")(facts())
    assert passed.fields == [(b"Remote-User", b"ann"), (b"Remote-Groups", b"a"), (b"Remote-Groups", b"b")]


@pytest.mark.parametrize("status", [401, 403, 301, 302, 303, 307, 308])
def test_an_answer_for_the_client_goes_to_it_as_it_is(status: int) -> None:
    server = Server(status, [(b"WWW-Authenticate", b"x"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Location", b"/in"),
                             (b"Content-Length", b"2"), (b"Date", b"now"), (b"Connection", b"close, X-Hop"), (b"X-Hop", b"1")],
                    b"no")
    assert server.answer is not None
    with pytest.raises(OwnAnswer) as caught:
        guard(server, cache=60)(facts())
    assert (caught.value.status, caught.value.body) == (status, b"no")
    assert caught.value.fields == server.answer.fields.pairs[:4]


@pytest.mark.parametrize("status", [0, 304, 404, 429, 500, 503])
def test_anything_else_refuses(status: int) -> None:
    server = Server(status)
    if not status:
        server.answer = None
    with pytest.raises(Undecided) as caught:
        guard(server, cache=60)(facts())
    assert caught.value.status == 503


def test_a_pass_is_remembered_for_the_same_request_and_for_its_time() -> None:
    server, clock = Server(200, [(b"A", b"1")]), ManualClock()
    ask = guard(server, "A", cache=5, clock=clock)
    for _ in range(3):
        assert ask(facts((b"Cookie", b"a"))).fields == [(b"A", b"1")]
    assert len(server.asked) == 1
    for other in (facts((b"Cookie", b"b")), facts((b"Cookie", b"a"), target=b"/"), facts((b"Cookie", b"a"), method=b"GET"),
                  facts((b"Cookie", b"a"), (b"X-Forwarded-For", b"1.2.3.4"))):
        ask(other)
    assert len(server.asked) == 5
    clock.advance(5)
    server.answer = None
    with pytest.raises(Undecided):
        ask(facts((b"Cookie", b"a")))


def test_without_a_time_nothing_is_remembered() -> None:
    server = Server()
    ask = guard(server)
    for _ in range(3):
        ask(facts())
    assert len(server.asked) == 3
