"""The balancer's own cookie: which server a value stands for, when it ends, and what a client cannot do with it."""
from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from itsdangerous import BadSignature, TimestampSigner

from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.cookie import CookieRules, CookieSticky
from prefork_lb.upstream.sticky.session import SessionRules
from tests.unit.upstream.parts import new_server

FIRST, SECOND = b"a secret of the site, number 1", b"a secret of the site, number 2"


@dataclass
class Asked:
    """A request with these Cookie fields."""

    cookies: Sequence[bytes] = ()
    method: bytes = b"GET"
    target: bytes = b"/"
    client: str = "192.0.2.1"
    key: bytes = b""
    queue_s: float = 0.0
    index: dict[bytes, Sequence[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cookies:
            self.index[b"cookie"] = self.cookies


class Site:
    """One balancer of a site, and its clock."""

    def __init__(self, *secrets: bytes, pool: str = "web", servers: Sequence[Server] | None = None, **rules: object) -> None:
        self.now = 1_800_000_000.0
        self.servers = list(servers or [new_server(slot) for slot in range(3)])
        self.sticky = CookieSticky(pool, self.servers, secrets or (FIRST,), SessionRules(), CookieRules(**rules),  # type: ignore[arg-type]
                                   lambda: self.now)

    def visit(self, *cookies: bytes, serve: int | None = None, https: bool = False) -> tuple[Server | None, bytes]:
        """The server of the session with these Cookie fields, and the Set-Cookie of the answer of it, or of server `serve`."""
        session = self.sticky.find(self.sticky.read(Asked(cookies), https))
        server = self.servers[serve] if serve is not None else session.server
        assert server is not None
        fields = self.sticky.settle(session, server, {})
        assert all(name == b"Set-Cookie" for name, _ in fields) and len(fields) <= 1
        return session.server, fields[0][1] if fields else b""

    def known(self, *cookies: bytes) -> int | None:
        """The number of the server that these cookies lead to."""
        server = self.sticky.find(self.sticky.read(Asked(cookies), False)).server
        return None if server is None else self.servers.index(server)


def pair(set_cookie: bytes) -> bytes:
    return set_cookie.partition(b";")[0]


def test_a_new_visitor_gets_a_cookie_that_leads_to_the_server_that_answered() -> None:
    site = Site()
    server, cookie = site.visit(serve=1)
    assert server is None
    assert site.known(pair(cookie)) == 1
    assert cookie.partition(b"; ")[2] == b"Path=/; HttpOnly; SameSite=Lax"


def test_a_visitor_with_a_good_cookie_gets_no_other() -> None:
    site = Site()
    cookie = pair(site.visit(serve=1)[1])
    site.now += 100_000
    assert site.visit(b"a=b; " + cookie + b"; c=d") == (site.servers[1], b"")


def test_the_new_visitors_of_one_second_have_the_same_value() -> None:
    site = Site()
    first = site.visit(serve=1)[1]
    assert site.visit(serve=1)[1] is first
    assert site.visit(serve=2)[1] != first
    site.now += 1
    assert site.visit(serve=1)[1] != first


def test_the_cookie_is_written_anew_when_another_server_answered() -> None:
    site = Site()
    cookie = pair(site.visit(serve=1)[1])
    server, moved = site.visit(cookie, serve=2)
    assert server is site.servers[1]
    assert site.known(pair(moved)) == 2


def test_two_hosts_with_the_same_secret_agree() -> None:
    cookie = pair(Site().visit(serve=2)[1])
    other = Site(servers=[new_server(slot) for slot in (2, 1, 0)])
    assert other.known(cookie) == 0  # the same address, at another place


def test_a_value_tells_nothing_of_the_server() -> None:
    site = Site()
    value = pair(site.visit(serve=1)[1]).partition(b"=")[2]
    for part in value.split(b"."):
        decoded = base64.urlsafe_b64decode(part + b"==")
        for told in (b"127.0.0.1", b"8001", b"web"):
            assert told not in decoded and told not in part


@pytest.mark.parametrize("spoil", [
    lambda value: value[:-1], lambda value: value[:30], lambda value: value[1:], lambda value: b"", lambda value: b"." * 150,
    lambda value: b"A" + value[1:], lambda value: value + b"A", lambda value: b'"' + value + b'"', lambda value: b"\xff\x80" * 40,
    lambda value: value.replace(b".", b"", 1), lambda value: b"x" * 5000, lambda value: b".".join([value] * 2),
    lambda value: value.rpartition(b".")[0] + b".", lambda value: value[:16] + b".a.b." + value.rpartition(b".")[2],
])
def test_a_spoiled_value_is_a_new_session(spoil: object) -> None:
    site = Site()
    name, _, value = pair(site.visit(serve=1)[1]).partition(b"=")
    spoiled = name + b"=" + spoil(value)  # type: ignore[operator]
    for _ in range(3):  # what is remembered is the same
        server, cookie = site.visit(spoiled, serve=0)
        assert server is None
        assert site.known(pair(cookie)) == 0


@pytest.mark.parametrize("other", [Site(SECOND), Site(pool="api")], ids=["secret", "pool"])
def test_a_foreign_value_is_a_new_session(other: Site) -> None:
    assert Site().known(pair(other.visit(serve=1)[1])) is None


def test_the_good_one_of_several_cookies_counts() -> None:
    site = Site()
    good = pair(site.visit(serve=1)[1])
    foreign = pair(Site(SECOND).visit(serve=2)[1])
    assert site.known(foreign + b"; " + good) == 1
    assert site.known(foreign, b"a=b", good) == 1


def test_a_session_whose_server_is_gone_is_a_new_one() -> None:
    cookie = pair(Site().visit(serve=2)[1])
    assert Site(servers=[new_server(0), new_server(1)]).known(cookie) is None


def test_secrets_are_replaced_without_the_loss_of_a_session() -> None:
    old = Site(FIRST)
    cookie = pair(old.visit(serve=1)[1])
    new = Site(SECOND, FIRST)
    server, renewed = new.visit(cookie)
    assert server is new.servers[1]
    only = Site(SECOND)
    assert only.known(pair(renewed)) == 1 and only.known(cookie) is None
    assert new.visit(pair(renewed)) == (new.servers[1], b"")
    # Hosts that have the new secret as the second one verify it already.
    assert Site(FIRST, SECOND).known(pair(renewed)) == 1


def test_max_age_counts_from_the_first_issue() -> None:
    site = Site(max_age_s=100)
    cookie = pair(site.visit(serve=1)[1])
    site.now += 60
    moved = site.visit(cookie, serve=2)[1]
    assert moved.endswith(b"; Max-Age=40")
    site.now += 40
    assert site.known(pair(moved)) == 2
    site.now += 1
    assert site.known(pair(moved)) is None


def test_idle_counts_from_the_last_refresh_and_a_tenth_of_it_refreshes() -> None:
    site = Site(idle_s=100)
    first = site.visit(serve=1)[1]
    assert first.endswith(b"; Max-Age=100")
    site.now += 9
    assert site.visit(pair(first)) == (site.servers[1], b"")
    site.now += 1
    refreshed = site.visit(pair(first))[1]
    assert site.known(pair(refreshed)) == 1
    site.now += 91
    assert site.known(pair(first)) is None
    assert site.known(pair(refreshed)) == 1
    site.now += 10
    assert site.known(pair(refreshed)) is None


@pytest.mark.parametrize(("secure", "https", "is_secure"), [
    ("auto", False, False), ("auto", True, True), ("always", False, True), ("never", True, False)])
def test_secure_goes_by_the_scheme_or_the_setting(secure: str, https: bool, is_secure: bool) -> None:
    cookie = Site(secure=secure).visit(serve=0, https=https)[1]
    assert (b"; Secure" in cookie) is is_secure


def test_attributes_are_those_of_the_configuration() -> None:
    site = Site(name="id", path="/app/", domain="example.org", http_only=False, same_site="none", secure="always")
    cookie = site.visit(serve=0)[1]
    assert cookie.startswith(b"id=") and cookie.partition(b"; ")[2] == b"Path=/app/; Domain=example.org; Secure; SameSite=None"


def test_a_head_full_of_forged_values_costs_few_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    good = pair(site.visit(serve=1)[1])
    verified: list[bytes] = []

    def unsign(signer: TimestampSigner, value: bytes, **options: object) -> object:
        verified.append(value)
        raise BadSignature("forged")

    monkeypatch.setattr(TimestampSigner, "unsign", unsign)
    forged = [b"; ".join(b"prefork_lb=aaaa.bbbb.cccc.%d" % number for number in range(start, start + 700)) for start in (0, 700)]
    assert site.known(*forged, good) is None
    assert verified == [b"aaaa.bbbb.cccc.%d" % number for number in range(4)]


def test_the_good_value_may_be_the_last_of_those_that_a_browser_has_for_several_paths() -> None:
    site = Site()
    good = pair(site.visit(serve=1)[1])
    others = [pair(Site(pool=pool).visit(serve=2)[1]) for pool in ("a", "b", "c")]
    assert site.known(b"; ".join([*others, good])) == 1
