"""The sessions of a server, and what is left of them when it is drained."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig, ServerConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.observe.sessions import ServerSessions, SessionCounter
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, States, now_ms
from tests.unit.shared.processes import Master

ADDRESS = "127.0.0.1:8001"
LEARN = StickyConfig(mode="learn", cookie="sid", idle=60)


class Instance:
    def __init__(self, master: int) -> None:
        self.segment = attach_or_create(master, Layout(4, 8, 8, sessions=10))
        self.ledger = Ledger(self.segment)
        self.states = States(self.segment)

    def left(self, sticky: StickyConfig | None, state: Admin = Admin.DRAIN, busy_ms: int = 0) -> str | None:
        return self.sessions(sticky, state, busy_ms).left

    def sessions(self, sticky: StickyConfig | None, state: Admin = Admin.DRAIN, busy_ms: int = 0) -> ServerSessions:
        with self.ledger.locked():
            self.states.set_admin(0, state)
        config = Config(pools={"web": PoolConfig(servers=(ServerConfig(address=ADDRESS),), sticky=sticky)})
        return SessionCounter(self.segment, self.states).of(config, "web", ADDRESS, 0, busy_ms)

    def let_pass(self, seconds: float) -> None:
        """As if the drain and the last request of a session had been so much earlier."""
        for column in (self.states.drained, self.states.session_at, self.states.sessions_window):
            column[0] -= int(seconds * 1000)


@pytest.fixture
def instance() -> Iterator[Instance]:
    master = Master()
    yield Instance(master.pid)
    remove_segment(master.pid)
    master.kill()


def test_learned_sessions_are_counted_until_they_end(instance: Instance) -> None:
    table, keys = SessionTable(instance.segment, instance.ledger), SessionKeys(instance.segment.secret, "web")
    assert instance.left(LEARN) == ""
    table.put(keys.session(b"ended"), keys.server(ADDRESS), now_ms() - 61_000)
    table.put(keys.session(b"other's"), keys.server("127.0.0.1:8002"), now_ms())
    table.put(keys.session(b"a"), keys.server(ADDRESS), now_ms())
    assert instance.left(LEARN) == "1 session"
    table.put(keys.session(b"b"), keys.server(ADDRESS), now_ms())
    assert instance.left(LEARN) == "2 sessions"
    assert instance.sessions(LEARN, Admin.READY) == ServerSessions(2)
    assert instance.left(None) is instance.left(LEARN, Admin.MAINTENANCE) is None


def test_a_table_that_takes_long_to_count_is_not_counted_at_each_look(instance: Instance) -> None:
    table, keys = SessionTable(instance.segment, instance.ledger), SessionKeys(instance.segment.secret, "web")
    clock = ManualClock()

    def slowly() -> float:
        clock.advance(1)  # so a count takes a second
        return clock()

    counter = SessionCounter(instance.segment, instance.states, slowly)
    config = Config(pools={"web": PoolConfig(servers=(ServerConfig(address=ADDRESS),), sticky=LEARN)})
    assert counter.of(config, "web", ADDRESS, 0).count == 0
    table.put(keys.session(b"a"), keys.server(ADDRESS), now_ms())
    assert counter.of(config, "web", ADDRESS, 0).count == 0
    clock.advance(20)
    assert counter.of(config, "web", ADDRESS, 0).count == 1


@pytest.mark.parametrize("sticky", [StickyConfig(), StickyConfig(mode="route", cookie="sid")], ids=["cookie", "route"])
def test_other_sessions_show_by_their_requests(instance: Instance, sticky: StickyConfig) -> None:
    assert instance.left(sticky).startswith("sessions that may come back (no request of one for 0 s, of 60 s)")
    with instance.ledger.locked():
        for _ in range(3):
            instance.states.count_session_request(0)
    assert instance.sessions(sticky) == ServerSessions(3, "3 requests of sessions in the last minute", 60)
    instance.let_pass(59)
    assert instance.left(sticky) == "3 requests of sessions in the last minute"
    instance.let_pass(1)
    assert instance.sessions(sticky).left == ""
    assert instance.sessions(sticky, Admin.READY) == ServerSessions()


def test_a_visitor_may_come_back_within_a_minute_after_the_drain_though_none_has_come_yet(instance: Instance) -> None:
    assert instance.left(StickyConfig()) != ""
    instance.let_pass(59)
    assert instance.left(StickyConfig()) == "sessions that may come back (no request of one for 59 s, of 60 s)"
    instance.let_pass(1)
    assert instance.left(StickyConfig()) == ""


@pytest.mark.parametrize("idle", [20, 600])
def test_with_idle_a_session_may_come_back_within_that_time(instance: Instance, idle: int) -> None:
    sticky = StickyConfig(idle=idle)
    instance.left(sticky)
    with instance.ledger.locked():
        instance.states.count_session_request(0)
    instance.let_pass(idle - 1)
    assert instance.left(sticky) != ""
    instance.let_pass(1)
    assert instance.left(sticky) == ""
    assert instance.sessions(sticky).quiet_s == idle


def test_the_visitor_of_a_long_request_may_come_back_after_it(instance: Instance) -> None:
    instance.left(StickyConfig())
    instance.let_pass(100)
    assert instance.left(StickyConfig(), busy_ms=now_ms() - 59_000) == (
        "sessions that may come back (no request of one for 59 s, of 60 s)")
    assert instance.left(StickyConfig(), busy_ms=now_ms() - 60_000) == ""


def test_no_cookie_outlives_max_age_on_a_drained_server(instance: Instance) -> None:
    sticky = StickyConfig(max_age=100)
    assert instance.left(sticky) != ""
    instance.let_pass(100)
    with instance.ledger.locked():
        instance.states.count_session_request(0)
    assert instance.sessions(sticky) == ServerSessions()


@pytest.mark.parametrize("sticky", [None, StickyConfig(mode="source"), StickyConfig(mode="header:X-Key")], ids=str)
def test_a_pool_that_keeps_no_sessions_has_none_left(instance: Instance, sticky: StickyConfig | None) -> None:
    assert instance.sessions(sticky) == ServerSessions()


def test_nothing_is_left_when_the_sessions_have_gone_to_others(instance: Instance) -> None:
    assert instance.left(StickyConfig(drain_timeout=5)) != ""
    instance.let_pass(5)
    assert instance.left(StickyConfig(drain_timeout=5)) is None
