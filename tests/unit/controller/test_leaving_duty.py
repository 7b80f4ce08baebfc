"""Servers that their source has let go, and when they are removed."""
from __future__ import annotations

import pytest

from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.controller.leaving_duty import LeavingDuty
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, PoolEntry, register
from prefork_lb.shared.table_lookup import slots_by_key

A = "10.0.0.1:80"


class Pool:
    """A pool with one server that scaling has added and let go, as the controller sees it."""

    def __init__(self, segment: Segment, sticky: StickyConfig | None = None) -> None:
        self.segment, self.ledger, self.states = segment, Ledger(segment), States(segment)
        register(segment, self.ledger, [PoolEntry("web", [], may_be_empty=True)])
        self.steering = Steering(segment, self.ledger, self.states)
        self.steering.add_server("web", A, who="scaling", source=AddedBy.SCALING)
        self.slot = slots_by_key(segment)["web", A]
        self.leaving = LeavingDuty(segment, self.ledger, self.states)
        self.leaving.use(Config(pools={"web": PoolConfig(sticky=sticky)}))

    def claim(self) -> None:
        with self.ledger.locked():
            self.ledger.claim(self.slot)

    def is_there(self) -> bool:
        self.leaving.look()
        return ("web", A) in slots_by_key(self.segment)


def test_a_server_that_was_let_go_goes_when_its_requests_have_finished(segment: Segment) -> None:
    pool = Pool(segment)
    pool.claim()
    assert pool.is_there()
    pool.steering.let_go("web", A)
    assert pool.is_there()
    pool.ledger.release(pool.slot)
    assert not pool.is_there()


def test_a_server_that_is_wanted_again_stays(segment: Segment) -> None:
    pool = Pool(segment)
    pool.steering.let_go("web", A)
    pool.steering.keep("web", A)
    assert pool.is_there()
    pool.steering.set_admin("web", A, Admin.DRAIN, "me")
    assert pool.is_there(), "an operator's drain removes nothing"


def test_a_server_whose_drain_was_broken_off_stays(segment: Segment) -> None:
    pool = Pool(segment)
    pool.states.leaving[pool.slot] = Admin.READY + 1
    assert pool.is_there()


def test_sessions_stay_until_none_comes_any_more(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(segment, StickyConfig(mode="cookie", idle=30.0))
    pool.steering.let_go("web", A)
    assert pool.is_there()
    start = pool.states.drained[pool.slot]
    monkeypatch.setattr("prefork_lb.observe.sessions.now_ms", lambda: start + 29_000)
    assert pool.is_there()
    monkeypatch.setattr("prefork_lb.observe.sessions.now_ms", lambda: start + 61_000)
    assert not pool.is_there()


def test_sessions_stay_for_drain_timeout_at_most(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(segment, StickyConfig(mode="cookie", drain_timeout=5.0))
    pool.steering.let_go("web", A)
    assert pool.is_there()
    start = pool.states.drained[pool.slot]
    monkeypatch.setattr("prefork_lb.observe.sessions.now_ms", lambda: start + 5_000)
    assert not pool.is_there()
