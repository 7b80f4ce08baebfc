"""What `prefork-lb drain` tells of the sessions that a server still has."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.cli.sessions_left import remaining
from prefork_lb.config.model import Config, PoolConfig, ServerConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.shared.desired import lay_down
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.wiring.room import packed
from tests.unit.shared.processes import Master

ADDRESS = "127.0.0.1:8001"


class Instance:
    def __init__(self, master: int) -> None:
        self.segment = attach_or_create(master, 4, 8, sessions=10)
        self.ledger = Ledger(self.segment)
        self.states = States(self.segment)

    def left(self, sticky: StickyConfig | None, state: Admin = Admin.DRAIN) -> str:
        config = Config(pools={"web": PoolConfig(servers=(ServerConfig(address=ADDRESS),), sticky=sticky)})
        with self.ledger.locked():
            lay_down(self.segment, packed(config))
            self.states.set_admin(0, state)
        return remaining(self.segment, self.ledger, self.states, "web", ADDRESS, 0)


@pytest.fixture
def instance() -> Iterator[Instance]:
    master = Master()
    yield Instance(master.pid)
    remove(master.pid)
    master.kill()


def test_learned_sessions_are_counted_until_they_end(instance: Instance) -> None:
    table, keys = SessionTable(instance.segment, instance.ledger), SessionKeys(instance.segment.secret, "web")
    learn = StickyConfig(mode="learn", cookie="sid", idle=60)
    assert instance.left(learn) == ""
    table.put(keys.session(b"ended"), keys.server(ADDRESS), now_ms() - 61_000)
    table.put(keys.session(b"other's"), keys.server("127.0.0.1:8002"), now_ms())
    table.put(keys.session(b"a"), keys.server(ADDRESS), now_ms())
    assert instance.left(learn) == "1 session"
    table.put(keys.session(b"b"), keys.server(ADDRESS), now_ms())
    assert instance.left(learn) == "2 sessions"
    assert instance.left(None) == instance.left(learn, Admin.MAINTENANCE) == ""


def test_other_sessions_show_by_their_requests(instance: Instance) -> None:
    cookie = StickyConfig()
    assert instance.left(cookie) == ""
    with instance.ledger.locked():
        for _ in range(3):
            instance.states.count_session_request(0)
    assert instance.left(cookie) == "3 requests of sessions in the last minute"
    instance.states.session_at[0] -= 60_000
    assert instance.left(cookie) == ""


def test_nothing_is_left_when_the_sessions_have_gone_to_others(instance: Instance) -> None:
    with instance.ledger.locked():
        instance.states.count_session_request(0)
    assert instance.left(StickyConfig(drain_timeout=5)) != ""
    instance.states.drained[0] -= 5000
    assert instance.left(StickyConfig(drain_timeout=5)) == ""
