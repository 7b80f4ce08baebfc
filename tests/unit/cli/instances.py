"""Instances in real shared memory for commands, and what the commands say."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from click.testing import CliRunner, Result

from prefork_lb.cli.main import main
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from tests.unit.shared.processes import Master

ONE, TWO, UNIX, V6, TLS = "10.0.0.1:80", "app.example:8001", "unix:/run/b.sock", "[2001:db8::1]:80", "https://10.0.0.9:443"
ALL = (ONE, TWO, UNIX, V6, TLS)


class Instance:
    """An instance with the pools web and api; both have the first server, web has all."""

    def __init__(self, pools: Sequence[tuple[str, Sequence[str]]] = (("web", ALL), ("api", (ONE,)))) -> None:
        self.process = Master()
        self.segment: Segment = attach_or_create(self.process.pid, Layout(4, 8, 8))
        self.ledger = Ledger(self.segment)
        self.states = States(self.segment)
        entries = [PoolEntry(name, [ServerEntry(address, 1, 0, False) for address in servers]) for name, servers in pools]
        found = register(self.segment, self.ledger, entries)
        self.slots = {(name, address): slot for name, servers in pools
                      for address, slot in zip(servers, found[name].slots, strict=True)}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def set(self) -> dict[tuple[str, str], tuple[Admin, int]]:
        """The states and weights that are not as at the start."""
        found = {key: (Admin(self.states.admin[slot]), self.states.weight_set[slot]) for key, slot in self.slots.items()}
        return {key: values for key, values in found.items() if values != (Admin.READY, 0)}

    def claim(self, pool: str, address: str, times: int = 1) -> None:
        with self.ledger.locked():
            for _ in range(times):
                self.ledger.claim(self.slots[pool, address])

    def release(self, pool: str, address: str) -> None:
        self.ledger.release(self.slots[pool, address])


class Time:
    """The commands' clock; while they sleep, `meanwhile` is done, once a nap, and then nothing."""

    def __init__(self) -> None:
        self.now, self.naps = 100.0, 0
        self.meanwhile: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds
        self.naps += 1
        assert self.naps < 10_000, "it waits for ever"
        if self.meanwhile:
            self.meanwhile.pop(0)()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def said(*arguments: object) -> str:
    """What a command that succeeds says."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: object, code: int = 1) -> str:
    """What a command that fails says."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    return result.stderr
