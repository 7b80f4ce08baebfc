"""An exchange of a session: what the server sees of its cookie, and what the client gets."""
from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from prefork_lb.net.address import Address
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.retries import RetryRules
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.cookie import CookieRules, CookieSticky
from prefork_lb.upstream.sticky.session import SessionRules
from prefork_lb.wire.forwarded import ClientInfo
from tests.unit.proxy.loopback import DEADLINE_S, Connection, ScriptedServer
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer, refusing
from tests.unit.proxy.test_hedging import HEDGE_AFTER_S, say

SECRET = b"0123456789abcdef"
HEDGED = RetryRules(attempts=2, hedge=True, backoff_s=0)


def cookies(servers: Sequence[Server]) -> CookieSticky:
    return CookieSticky("web", servers, [SECRET], SessionRules(), CookieRules())


def sticky_rig(*addresses: Address, rules: RetryRules | None = None) -> Rig:
    return Rig(*addresses, rules=rules, sticky=cookies)


def visit(rig: Rig, *fields: bytes, asked: Request | None = None) -> tuple[int, bytes, bytes]:
    """The number of the server that answered, and the cookie and the whole field that the client gets."""
    reply = rig.exchange(asked or request(fields=[(b"Cookie", field) for field in fields]))
    try:
        added = list(reply.added)
        assert len(added) <= 1
        field = added[0][1] if added else b""
        return rig.servers.index(reply.served_by), field.partition(b";")[0], field
    finally:
        reply.close()


def own_cookie(rig: Rig, number: int) -> bytes:
    """A good cookie for this server."""
    sticky = rig.pool.sticky
    assert sticky is not None
    fields = sticky.settle(sticky.find(sticky.read(request(), False)), rig.servers[number], {})
    return fields[0][1].partition(b";")[0]


def cookie_fields(server: ScriptedServer) -> list[bytes]:
    return [line for line in server.requests[-1].split(b"\r\n") if line.lower().startswith(b"cookie")]


def test_the_cookie_leads_back_and_never_reaches_the_server() -> None:
    with ScriptedServer(answer(b"one")) as one, ScriptedServer(answer(b"two")) as two, \
            sticky_rig(one.address, two.address) as rig:
        first, cookie, _ = visit(rig)
        assert (first, bool(cookie)) == (0, True)
        rig.servers[0].max_connections = 0
        second, other, _ = visit(rig)
        rig.servers[0].max_connections = 9
        assert second == 1
        for fields, seen in (((b"a=b; " + other + b"; c=d",), [b"Cookie: a=b; c=d"]), ((other,), []),
                             ((b"a=b", other, b"c=d"), [b"Cookie: a=b", b"Cookie: c=d"])):
            for _ in range(3):  # what is kept with the head is the same
                assert visit(rig, *fields)[:2] == (1, b"")
                assert cookie_fields(two) == seen


def test_a_bad_cookie_does_not_reach_the_server_either() -> None:
    with ScriptedServer(answer(b"one")) as one, sticky_rig(one.address) as rig:
        number, cookie, _ = visit(rig, b"prefork_lb=forged; a=b")
        assert number == 0 and cookie
        assert cookie_fields(one) == [b"Cookie: a=b"]


def test_the_cookie_names_the_server_that_answered_after_a_retry() -> None:
    with ScriptedServer(answer(b"two")) as two, sticky_rig(refusing(), two.address) as rig:
        number, cookie, _ = visit(rig)
        assert number == 1
        assert visit(rig, cookie)[:2] == (1, b"")


def test_a_session_whose_server_refuses_moves_with_a_new_cookie() -> None:
    with ScriptedServer(answer(b"one")) as one, sticky_rig(one.address, refusing()) as rig:
        number, cookie, _ = visit(rig, own_cookie(rig, 1))
        assert number == 0 and cookie
        assert visit(rig, cookie)[:2] == (0, b"")


def slow(go_on: threading.Event) -> Callable[[Connection], None]:
    """Answers when a second server would have been asked long ago."""

    def script(connection: Connection) -> None:
        connection.head()
        go_on.wait(10 * HEDGE_AFTER_S)
        say(200)(connection)

    return script


def test_a_newcomer_gets_the_cookie_of_the_server_that_was_quicker() -> None:
    go_on = threading.Event()

    def never(connection: Connection) -> None:
        connection.head()
        go_on.wait(DEADLINE_S)

    with ScriptedServer(never) as one, ScriptedServer(answer(b"two")) as two, \
            sticky_rig(one.address, two.address, rules=HEDGED) as rig:
        rig.pool.hedge_after_s = HEDGE_AFTER_S
        number, cookie, _ = visit(rig)
        go_on.set()
        assert number == 1 and visit(rig, cookie)[:2] == (1, b"")


def test_a_session_is_not_hedged() -> None:
    """The other server does not know the login, and may be quicker to say so."""
    with ScriptedServer(slow(threading.Event())) as one, ScriptedServer(answer(b"two")) as two, \
            sticky_rig(one.address, two.address, rules=HEDGED) as rig:
        rig.pool.hedge_after_s = HEDGE_AFTER_S
        assert visit(rig, own_cookie(rig, 0))[:2] == (0, b"")
        assert two.accepted == 0


@pytest.mark.parametrize(("scheme", "trusted", "told", "is_secure"), [
    (b"http", False, b"", False), (b"https", False, b"", True), (b"http", True, b"https", True), (b"https", True, b"http", False),
    (b"http", False, b"https", False), (b"http", True, b"https, http", True), (b"http", True, b"gopher", False)])
def test_the_cookie_is_secure_when_the_client_speaks_https(scheme: bytes, trusted: bool, told: bytes, is_secure: bool) -> None:
    with ScriptedServer(answer(b"one")) as one, sticky_rig(one.address) as rig:
        asked = request(fields=[(b"X-Forwarded-Proto", told)] if told else [])
        asked.peer = ClientInfo("192.0.2.1", scheme, 80, trusted)
        assert (b"; Secure" in visit(rig, asked=asked)[2]) is is_secure
