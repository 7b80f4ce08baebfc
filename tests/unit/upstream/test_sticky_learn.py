"""Sessions that are learned from responses, and those that are hashed."""
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from prefork_lb.balance.hashed import Hash
from prefork_lb.balance.keys import policy_key_finder
from prefork_lb.balance.policy import PolicySetup
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, States
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.keyed import KeyedSticky
from prefork_lb.upstream.sticky.learn import LearnedSticky
from prefork_lb.upstream.sticky.session import OnFailure, SessionRules, Sticky
from tests.unit.balance.candidates import AnyRequest, fresh_memory, new_policy
from tests.unit.shared.processes import Master
from tests.unit.upstream.parts import make_pool, new_server

IDLE_S = 60


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    master = Master()
    yield Ledger(attach_or_create(master.pid, Layout(4, 8, 8, sessions=100)))
    remove_segment(master.pid)
    master.kill()


class Site:
    def __init__(self, ledger: Ledger, cookie: str = "sid", header: str = "") -> None:
        self.now = 1_000_000
        self.servers = [new_server(slot) for slot in range(3)]
        segment = ledger.segment
        self.sticky = LearnedSticky(self.servers, SessionTable(segment, ledger), SessionKeys(segment.secret, "web"),
                                    SessionRules(), cookie, header, IDLE_S, lambda: self.now)

    def asked(self, **fields: bytes) -> int | None:
        return known(self.sticky, self.servers, **fields)

    def answered(self, number: int, name: bytes, *values: bytes, **asked: bytes) -> None:
        session = self.sticky.find(self.sticky.read(request(**asked), False))
        assert self.sticky.settle(session, self.servers[number], {name: values} if values else {}) == ()


def request(**fields: bytes) -> AnyRequest:
    return AnyRequest(index={name.replace("_", "-").encode(): [value] for name, value in fields.items()})


def known(sticky: Sticky, servers: Sequence[Server], **fields: bytes) -> int | None:
    server = sticky.find(sticky.read(request(**fields), False)).server
    return None if server is None else servers.index(server)


def test_the_value_that_a_server_sets_leads_to_it_in_every_worker(ledger: Ledger) -> None:
    site, sibling = Site(ledger), Site(Ledger(ledger.segment))
    assert site.asked(cookie=b"sid=abc") is None
    site.answered(1, b"set-cookie", b"other=1; Path=/", b"sid=abc; HttpOnly")
    assert site.asked(cookie=b"a=b; sid=abc") == sibling.asked(cookie=b"sid=abc") == 1
    assert site.asked(cookie=b"sid=abd") is site.asked(cookie=b"other=1") is site.asked(cookie=b"sid=") is None


def test_only_the_first_values_of_a_request_are_looked_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(ledger)
    site.answered(1, b"set-cookie", b"sid=abc")
    hashed: list[bytes] = []
    real = SessionKeys.session
    monkeypatch.setattr(SessionKeys, "session", lambda keys, value: hashed.append(value) or real(keys, value))
    assert site.asked(cookie=b"sid=1; sid=2; sid=3; sid=abc") == 1
    hashed.clear()
    assert site.asked(cookie=b"; ".join(b"sid=%d" % number for number in range(3000))) is None
    assert hashed == [b"0", b"1", b"2", b"3"]


def test_the_value_of_a_field_is_learned(ledger: Ledger) -> None:
    site = Site(ledger, "", "X-Session")
    site.answered(2, b"x-session", b"abc")
    assert site.asked(x_session=b"abc") == 2 and site.asked(cookie=b"sid=abc") is None


def test_a_session_ends_when_it_was_not_used_for_long(ledger: Ledger) -> None:
    site = Site(ledger)
    site.answered(1, b"set-cookie", b"sid=abc")
    for _ in range(3):
        site.now += IDLE_S * 1000 - 1
        assert site.asked(cookie=b"sid=abc") == 1
    site.now += IDLE_S * 1000 + 1
    assert site.asked(cookie=b"sid=abc") is None


def test_a_session_follows_to_the_server_that_answered(ledger: Ledger) -> None:
    site = Site(ledger)
    site.answered(1, b"set-cookie", b"sid=abc")
    site.answered(2, b"", cookie=b"sid=abc")
    assert site.asked(cookie=b"sid=abc") == 2


def test_a_session_whose_server_has_left_the_pool_is_a_new_one(ledger: Ledger) -> None:
    site, later = Site(ledger), Site(ledger)
    site.answered(2, b"set-cookie", b"sid=abc")
    later.servers = later.servers[:2]
    later.sticky = LearnedSticky(later.servers, SessionTable(ledger.segment, ledger), SessionKeys(ledger.segment.secret, "web"),
                                 SessionRules(), "sid", "", IDLE_S, lambda: later.now)
    assert later.asked(cookie=b"sid=abc") is None


def hashed(servers: Sequence[Server], mode: str = "header:X-User", rules: SessionRules | None = None) -> KeyedSticky:
    policy = Hash(PolicySetup(random.Random(1), fresh_memory(), servers))
    return KeyedSticky(policy, policy_key_finder(mode, lambda address: False), rules or SessionRules(keeps_drained=False))


def test_the_same_field_leads_to_the_same_server_and_without_it_there_is_no_session() -> None:
    servers = [new_server(slot) for slot in range(3)]
    found = {user: known(hashed(servers), servers, x_user=b"%d" % user) for user in range(60)}
    assert set(found.values()) == {0, 1, 2}
    assert {user: known(hashed(servers[::-1]), servers, x_user=b"%d" % user) for user in range(60)} == found
    assert known(hashed(servers), servers) is None
    assert known(hashed(servers, "source"), servers) is not None


@pytest.mark.parametrize("on_failure", [OnFailure.REBALANCE, OnFailure.STRICT])
def test_all_hashed_sessions_leave_a_drained_server_and_come_back(ledger: Ledger, on_failure: OnFailure) -> None:
    """Also when they must not move for a failure: nothing would ever drain the server."""
    servers = [new_server(slot) for slot in range(3)]
    sticky = hashed(servers, rules=SessionRules(on_failure, keeps_drained=False))
    pool = make_pool(ledger, servers, new_policy("round-robin"), sticky=sticky)

    def visit(user: int) -> Server:
        asked = request(x_user=b"%d" % user)
        lease = pool.lease(asked, (), session=sticky.find(sticky.read(asked, False)))
        lease.succeed(reusable=False)
        return lease.server

    before = {user: visit(user) for user in range(40)}
    with ledger.locked():
        States(ledger.segment).set_admin(0, Admin.DRAIN)
    drained = {user: visit(user) for user in range(40)}
    assert servers[0] not in drained.values()
    assert all(drained[user] is server for user, server in before.items() if server is not servers[0])
    assert {user: visit(user) for user in range(40)} == drained
    with ledger.locked():
        States(ledger.segment).set_admin(0, Admin.READY)
    assert {user: visit(user) for user in range(40)} == before
