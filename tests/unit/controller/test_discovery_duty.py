"""From lists to pools, and what is told of it."""
from __future__ import annotations

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.config.discovery import DiscoveryConfig
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.controller.discovery_duty import DiscoveryDuty
from prefork_lb.discovery.finder import Finder, Outcome
from prefork_lb.shared.discovered import Discovered, DiscoveryState, discovered_of
from prefork_lb.shared.events import recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import view

A, B, C = (f"10.0.0.{number}:80" for number in range(1, 4))
FILE, OTHER = DiscoveryConfig(file="a.json"), DiscoveryConfig(file="b.json")


class FakeFinder(Finder):
    """Finds what it is told to find."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.is_closed = False

    def finds(self, *addresses: str, error: str = "") -> None:
        before = self.outcome
        servers = before.servers if error else {address: ServerEntry(address, 1, 0, False) for address in addresses}
        self.outcome = Outcome(before.number + 1, servers, before.good_at if error else 1000.0 + before.number, error)

    def close(self) -> None:
        self.is_closed = True


class Instance:
    """A controller's discovery for the pools `web` and `api`."""

    def __init__(self, segment: Segment) -> None:
        self.segment, self.ledger, self.states = segment, Ledger(segment), States(segment)
        register(segment, self.ledger, [PoolEntry(name, [], may_be_empty=True) for name in ("web", "api")])
        self.finders: dict[tuple[str, str], FakeFinder] = {}
        self.clock = ManualClock()
        self.duty = self.new_duty()
        self.use(web=FILE)

    def new_duty(self) -> DiscoveryDuty:
        def make(name: str, settings: DiscoveryConfig) -> Finder:
            return self.finders.setdefault((name, settings.file), FakeFinder())
        return DiscoveryDuty(self.segment, self.ledger, self.states, make, self.clock)

    def use(self, **settings: DiscoveryConfig | None) -> None:
        self.duty.use(Config(pools={name: PoolConfig(discovery=found) for name, found in settings.items()}))

    def finds(self, *addresses: str, name: str = "web", file: str = "a.json", error: str = "") -> None:
        self.finders[name, file].finds(*addresses, error=error)
        self.duty.look()

    def servers(self, name: str = "web") -> list[str]:
        return [each.address for each in view(self.segment).servers if each.pool == name and not each.leaving]

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(event.kind, event.text) for event in recent(self.segment)]

    @property
    def told(self) -> Discovered | None:
        return discovered_of(self.segment, 0)


@pytest.fixture
def instance(segment: Segment) -> Instance:
    return Instance(segment)


def test_a_pool_has_the_servers_of_its_list(instance: Instance) -> None:
    instance.duty.look()
    assert instance.told == Discovered(DiscoveryState.WAITING, 0.0, 0, "") and discovered_of(instance.segment, 1) is None
    instance.finds(A, B)
    assert instance.servers() == [A, B] and instance.servers("api") == []
    assert instance.told == Discovered(DiscoveryState.GOOD, 1000.0, 2, "")
    assert instance.events == [("discovered", f"2 joined: {A}, {B}")]


def test_a_list_that_fails_leaves_all_as_it_is_also_for_the_next_controller(instance: Instance) -> None:
    instance.finds(A, B)
    instance.finds(error="not JSON")
    assert instance.servers() == [A, B]
    assert instance.told == Discovered(DiscoveryState.FAILING, 1000.0, 2, "not JSON")
    assert instance.events[-1] == ("discovery-failed", "not JSON; its servers stay as they are")
    instance.finders.clear()
    instance.duty = instance.new_duty()
    instance.use(web=FILE)
    instance.finds(error="cannot be read")
    assert instance.servers() == [A, B]
    assert instance.told == Discovered(DiscoveryState.FAILING, 1000.0, 2, "cannot be read")
    instance.finds(B)
    assert instance.servers() == [B] and instance.events[-1] == ("discovered", "the list is good again")


def test_nothing_is_written_while_nothing_changes(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.finds(A, B)
    instance.finds(error="x" * 500)
    monkeypatch.setattr(instance.ledger, "locked", lambda: pytest.fail("every worker waits for the lock"))
    instance.duty.look()
    assert instance.told is not None and "xxx" in instance.told.error


def test_a_list_that_flaps_makes_few_events(instance: Instance) -> None:
    for number in range(200):
        instance.finds(A, *([B] if number % 2 else []))
        instance.finds(error=f"broken {number}")
        instance.clock.advance(0.5)
    assert len(instance.events) <= 100 / 10 + 2 * (100 / 60 + 1) + 1
    instance.clock.advance(60)
    instance.finds(A, B)
    kinds = [kind for kind, _ in instance.events]
    assert kinds[0] == kinds[-1] == "discovered" and "discovery-failed" in kinds


def test_what_others_do_to_listed_servers_is_set_right(instance: Instance) -> None:
    steering = Steering(instance.segment, instance.ledger, instance.states)
    steering.add_server("web", A, who="me")
    instance.finds(A, B)
    steering.remove_server("web", A, who="me")
    instance.duty.look()
    assert instance.servers() == [A, B] or instance.servers() == [B, A]


def test_a_pool_that_fails_does_not_stop_the_others(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    instance.use(gone=FILE, web=FILE)
    instance.finders["gone", "a.json"].finds(A)
    instance.finds(B)
    assert instance.servers() == [B]
    assert "discover servers of the pool gone" in caplog.text


def test_the_same_settings_go_on_and_others_begin_anew(instance: Instance) -> None:
    instance.finds(A, B)
    first = instance.finders["web", "a.json"]
    instance.use(web=FILE, api=FILE)
    assert instance.finders["web", "a.json"] is first and not first.is_closed
    instance.use(web=OTHER)
    assert first.is_closed and instance.finders["api", "a.json"].is_closed
    instance.duty.look()
    assert instance.servers() == [A, B], "until the other list is there"
    instance.finds(C, file="b.json")
    assert instance.servers() == [C]


def test_a_pool_that_discovers_no_more_lets_its_servers_go(instance: Instance) -> None:
    instance.finds(A, B)
    instance.use(web=None)
    instance.duty.look()
    assert instance.servers() == [] and instance.told is None


def test_a_list_for_which_there_is_no_room_is_told(instance: Instance) -> None:
    room = instance.segment.layout.servers
    instance.finds(*(f"10.1.{number >> 8}.{number & 255}:80" for number in range(room + 1)))
    assert instance.told is not None and instance.told.state is DiscoveryState.GOOD
    assert instance.told.error == f"room for {room} servers only; restart gunicorn to make more"
    assert instance.events[-1] == ("discovery-failed", instance.told.error)
