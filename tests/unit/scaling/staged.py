"""A fleet on a stage: a driver, a pool, checks and a clock that do what a test tells them."""
from __future__ import annotations

from collections.abc import Collection, Mapping

from prefork_lb.clock import ManualClock
from prefork_lb.errors import Refused
from prefork_lb.scaling.driver import Ended, Running, StartFailed
from prefork_lb.scaling.fleet import Fleet, FleetSettings
from prefork_lb.scaling.fleet_pool import PooledServer
from prefork_lb.scaling.rolling import RollRequest
from prefork_lb.scaling.scaled_server import ScaledState
from prefork_lb.shared.events import EventKind

TICK_S = 0.25


class StagedDriver:
    """Servers that only exist here."""

    is_closed = False

    def __init__(self) -> None:
        self.running: dict[int, Running] = {}
        self.asked_to_end: dict[int, bool] = {}  # by number; whether hard
        self.over: list[Ended] = []
        self.starts = 0
        self.refusal = ""
        self.is_slow = False  # with addresses
        self.ends_when_asked = True
        self.memories: dict[int, int] = {}
        self.clock = ManualClock(1000.0)

    def start(self, n: int) -> None:
        if self.refusal:
            raise StartFailed(self.refusal)
        assert n not in self.running, f"{n} is started twice"
        self.starts += 1
        self.running[n] = Running(f"127.0.0.1:{9000 + self.starts}", self.clock())

    def address(self, n: int) -> str:
        return "" if self.is_slow else self.running[n].address

    def last_lines(self, n: int) -> str:
        return f"lines of {n}"

    def memory(self, n: int) -> int | None:
        return self.memories.get(n)

    def cpu_s(self, n: int) -> float | None:
        return None

    def stop(self, n: int, hard: bool) -> None:
        self.asked_to_end[n] = hard
        if hard or self.ends_when_asked:
            self.end(n, "exited with code 0")

    def end(self, n: int, why: str = "exited with code 1") -> None:
        """A server ends."""
        del self.running[n]
        self.asked_to_end.pop(n, None)
        self.over.append(Ended(n, why, "the last line"))

    def ended(self) -> list[Ended]:
        found, self.over = self.over, []
        return found

    def adopt(self) -> dict[int, Running]:
        return dict(self.running)

    def close(self) -> None:
        raise AssertionError("the fleet never does this")


class StagedPool:
    """A pool, without sessions: a drained server with nothing in flight is removed at the next look."""

    def __init__(self) -> None:
        self.servers: dict[str, PooledServer] = {}
        self.busy: set[str] = set()  # they have requests that do not end
        self.events: list[tuple[EventKind, str, str]] = []
        self.refusal = ""
        self.unfit: set[str] = set()
        self.down: set[str] = set()  # their checks fail
        self.kept_out: set[str] = set()  # operators have drained them

    def seen(self) -> Mapping[str, PooledServer]:
        for address, seen in list(self.servers.items()):
            if seen.is_leaving and address not in self.busy:
                del self.servers[address]
        return {address: seen._replace(is_usable=False, is_down=not seen.is_leaving) if address in self.down
                else seen._replace(is_usable=False) if address in self.kept_out else seen
                for address, seen in self.servers.items()}

    def add(self, address: str) -> None:
        if self.refusal:
            raise Refused(self.refusal)
        assert address not in self.servers
        self.servers[address] = PooledServer(0, False, address not in self.unfit)

    def let_go(self, address: str) -> None:
        self.servers[address] = self.servers[address]._replace(is_leaving=True, is_usable=False)

    def keep(self, address: str) -> None:
        self.servers[address] = self.servers[address]._replace(is_leaving=False, is_usable=True)

    def remove(self, address: str) -> None:
        del self.servers[address]

    def tell(self, kind: EventKind, address: str, text: str) -> None:
        self.events.append((kind, address, text))


class StagedReadiness:
    """Checks that pass when the test wants."""

    def __init__(self) -> None:
        self.passes = True
        self.watched: set[str] = set()

    def watch(self, addresses: Collection[str]) -> None:
        self.watched = set(addresses)

    def is_ready(self, address: str) -> bool:
        return self.passes and address in self.watched

    def why_not(self, address: str) -> str:
        return "connection refused"


class Stage:
    """All of them, and the fleet. It ticks four times a second, and holds that the pool never has a server that has ended."""

    def __init__(self, settings: FleetSettings | None = None) -> None:
        self.driver, self.pool, self.readiness = StagedDriver(), StagedPool(), StagedReadiness()
        self.clock = self.driver.clock
        self.settings = settings or FleetSettings()
        self.wanted = 0
        self.roll: RollRequest | None = None
        self.least_serving = 0
        self.fleet = self.new_fleet()

    def new_fleet(self) -> Fleet:
        """One that knows nothing of before, as of a new controller."""
        self.fleet = Fleet("app", self.settings, self.driver, self.pool, self.readiness, self.clock)
        return self.fleet

    def run(self, seconds: float = TICK_S, wanted: int | None = None) -> None:
        """Let time pass."""
        self.wanted = self.wanted if wanted is None else wanted
        self.least_serving = 1000
        for _ in range(round(seconds / TICK_S)):
            self.clock.advance(TICK_S)
            self.fleet.tick(self.wanted, self.roll)
            self.least_serving = min(self.least_serving, self.serving)

    def start_roll(self, surge: int = 1) -> None:
        self.clock.advance(0.01)
        self.roll = RollRequest(self.clock(), surge)

    @property
    def serving(self) -> int:
        """Servers that get requests."""
        return sum(1 for seen in self.pool.servers.values() if not seen.is_leaving)

    @property
    def states(self) -> str:
        """ "1 serving, 2 starting" """
        return ", ".join(f"{member.n} {member.state.value}" for member in self.fleet.servers)

    def count(self, *states: ScaledState) -> int:
        return self.fleet.count(*states)

    def kinds(self) -> list[EventKind]:
        return [kind for kind, _, _ in self.pool.events]
