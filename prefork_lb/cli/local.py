"""An instance on this host, by its shared memory."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import click

from prefork_lb.cli.instances import Document, Key
from prefork_lb.cli.running import running_segment, running_segments, who
from prefork_lb.config.model import Config
from prefork_lb.errors import SteeringError
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.sessions import ServerSessions, SessionCounter
from prefork_lb.observe.snapshot import Snapshots
from prefork_lb.observe.splits import splits_of
from prefork_lb.shared.events import Event, recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table_lookup import owner_of, slots_by_key
from prefork_lb.wiring.reloading import ReloadRefused, reload

Changed = TypeVar("Changed")


class LocalInstance:
    """See `instances.Instance`."""

    def __init__(self, segment: Segment) -> None:
        self.name = f"gunicorn master {segment.masters()[-1]}"
        self.segment = segment
        self._snapshots = Snapshots(segment)
        self._ledger = Ledger(segment, takes_row=False)
        self._states = States(segment)

    def document(self) -> Document:
        self._check_runs()
        return self._snapshots.take()

    def events(self, after: int) -> list[Event]:
        self._check_runs()
        return recent(self.segment, after)

    def configuration(self) -> Config:
        config = configuration_of(self.segment)
        if config is None:
            raise click.ClickException(f"{self.name} has no configuration in force that this version can read")
        return config

    def reload(self) -> None:
        self.enter_folder()
        try:
            reload(self.segment, self._ledger, who())
        except ReloadRefused as exc:
            raise click.ClickException(str(exc)) from exc

    def enter_folder(self) -> None:
        """Be where the instance's master is: its configuration has names that are relative to that."""
        try:
            os.chdir(f"/proc/{self.segment.masters()[-1]}/cwd")
        except (OSError, IndexError) as exc:
            raise click.ClickException(f"{self.name}: its working directory cannot be entered: {exc}") from exc

    def servers(self) -> list[Key]:
        with self._ledger.locked():
            return list(slots_by_key(self.segment))

    def leftover(self, servers: Sequence[Key]) -> LocalLeftover:
        with self._ledger.locked():
            slots = slots_by_key(self.segment)
        return LocalLeftover(self.segment, self._ledger, self._states, {key: slots[key] for key in servers if key in slots})

    def set_admin(self, pool: str, address: str, state: str) -> None:
        self._steer(lambda steering: steering.set_admin(pool, address, Admin[state.upper()], who()))

    def set_weight(self, pool: str, address: str, weight: int | None) -> None:
        self._steer(lambda steering: steering.set_weight(pool, address, weight, who()))

    def set_limit(self, pool: str, address: str, limit: int | None) -> None:
        self._steer(lambda steering: steering.set_limit(pool, address, limit, who()))

    def add_server(self, pool: str, address: str, weight: int, max_connections: int, backup: bool) -> str:
        return self._steer(lambda steering: steering.add_server(pool, address, weight, max_connections, backup, who=who()))

    def remove_server(self, pool: str, address: str) -> None:
        self._steer(lambda steering: steering.remove_server(pool, address, who=who()))

    def set_split(self, split: Document, weights: Mapping[str, int | None]) -> None:
        found = next((found for found in splits_of(self.configuration()) if found.id == split["id"]), None)
        if found is None:
            raise click.ClickException(f"{self.name}: a reload has taken the split away")
        self._steer(lambda steering: steering.set_split(found, weights, who()))

    def scale(self, pool: str, servers: int | None) -> None:
        self._steer(lambda steering: steering.scale(pool, servers, who()))

    def roll(self, pool: str, surge: int) -> None:
        self._steer(lambda steering: steering.roll(pool, surge, who()))

    def _steer(self, change: Callable[[Steering], Changed]) -> Changed:
        try:
            return change(Steering(self.segment, self._ledger, self._states))
        except SteeringError as exc:
            raise click.ClickException(str(exc)) from exc

    def _check_runs(self) -> None:
        if not self.segment.masters():
            raise click.ClickException(f"{self.name}: the instance has ended")


class LocalLeftover:
    """See `instances.Leftover`."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, slots: Mapping[Key, int]) -> None:
        self._segment, self._ledger, self._states, self._slots = segment, ledger, states, slots
        self._counter = SessionCounter(segment, states)
        self._busy_ms = 0  # when a request was last seen in flight, monotonic

    @property
    def in_flight(self) -> int:
        # A server that was removed has its slot for as long as it has requests.
        found = sum(self._ledger.totals[slot] for key, slot in self._slots.items() if owner_of(self._segment, slot) == key)
        if found:
            self._busy_ms = now_ms()
        if not self._segment.masters():
            raise click.ClickException(f"the instance has ended, with {self._words(found, still=False) or 'nothing left'}")
        return found

    def left(self, still: bool = False) -> str:
        return self._words(self.in_flight, still)

    def nothing(self) -> str:
        quiet_s = max(sessions.quiet_s for sessions in self._sessions())
        return "nothing in flight any more" + (f", and no request of a session for {quiet_s:g} s" if quiet_s else "")

    def _words(self, in_flight: int, still: bool) -> str:
        parts = [f"{in_flight}{' still' if still else ''} in flight"] if in_flight else []
        return ", ".join([*parts, *(sessions.left for sessions in self._sessions() if sessions.left)])

    def _sessions(self) -> list[ServerSessions]:
        config = configuration_of(self._segment)
        return [self._counter.of(config, *key, slot, self._busy_ms) for key, slot in self._slots.items()]


def local_instance(master: int | None) -> LocalInstance:
    """The one instance that runs, or that of this gunicorn master. Raises ClickException."""
    return LocalInstance(running_segment(master))


def local_instances(master: int | None) -> Iterator[LocalInstance]:
    """All instances that run, or that of this gunicorn master. Raises ClickException."""
    if master is not None:
        yield local_instance(master)
        return
    for segment in running_segments():
        yield LocalInstance(segment)
