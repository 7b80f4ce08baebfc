"""`prefork-lb drain`, `ready`, `maintenance`, `weight`, `add`, `remove`: what operators do to servers, for all workers."""
from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from prefork_lb.cli.number import Number
from prefork_lb.cli.running import running_segment, who
from prefork_lb.errors import SteeringError, shown
from prefork_lb.net.address import parse_address
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import owner_of, slots_by_key

if TYPE_CHECKING:
    from prefork_lb.cli.sessions_left import SessionsLeft

_WAIT_LOOK_S = 0.05
_SESSIONS_LOOK_S = 1.0
_TELL_S = 5.0

_server = click.argument("server")
_pool = click.option("--pool", metavar="NAME", help="Only in this pool; without it, in every pool that has the server.")
_master = click.option("--master", type=int, metavar="PID", help="gunicorn's master, when several instances run.")


class Chosen:
    """A server of a running instance: its slots, one for each pool, and the shared memory that they are in."""

    def __init__(self, segment: Segment, server: str, pool: str | None) -> None:
        self.segment = segment
        self.ledger = Ledger(segment, takes_row=False)
        self.states = States(segment)
        self.busy_ms = 0  # when a request was last seen in flight, monotonic
        with self.ledger.locked():
            table = slots_by_key(segment)
        address = _canonical(server)
        self.slots = {key: slot for key, slot in table.items() if key[1] in (server, address) and pool in (None, key[0])}
        if not self.slots:
            known = ", ".join(f"{name} (pool {of})" for of, name in sorted(table))
            raise click.ClickException(f"no server {shown(server)}{f' in pool {shown(pool)}' if pool else ''}; there are {known}")

    def change(self, apply: Callable[[Steering, str, str], object]) -> None:
        """Call `apply` with the pool and address of each. Raises ClickException."""
        steering = Steering(self.segment, self.ledger, self.states)
        try:
            for pool, address in self.slots:
                apply(steering, pool, address)
        except SteeringError as exc:
            raise click.ClickException(str(exc)) from exc

    def left(self, still: str = "") -> str:
        """What is left on the server, in words: requests in flight, and sessions that its pools keep; empty: nothing."""
        parts = [f"{self.in_flight}{still} in flight"] if self.in_flight else []
        found = [sessions.in_words(self.busy_ms) for sessions in self._sessions()]
        return ", ".join([*parts, *filter(None, found)])

    def nothing(self) -> str:
        """What it means that nothing is left, in words."""
        quiet_s = max(sessions.quiet_s for sessions in self._sessions())
        return "nothing in flight any more" + (f", and no request of a session for {quiet_s:g} s" if quiet_s else "")

    def _sessions(self) -> list[SessionsLeft]:
        from prefork_lb.cli.sessions_left import SessionsLeft  # loads the configuration's modules, which only a drain needs

        return [SessionsLeft(self.segment, self.ledger, self.states, *key, slot) for key, slot in self.slots.items()]

    @property
    def in_flight(self) -> int:
        """Requests in flight on the server, in the pools chosen."""
        # A server that was removed has its slot for as long as it has requests.
        return sum(self.ledger.totals[slot] for key, slot in self.slots.items() if owner_of(self.segment, slot) == key)


def _canonical(server: str) -> str:
    try:
        return str(parse_address(server))
    except ValueError:
        return server  # it is looked for as it was typed


@contextmanager
def _chosen(server: str, pool: str | None, master: int | None) -> Iterator[Chosen]:
    yield Chosen(running_segment(master), server, pool)


def _set_state(state: Admin, server: str, pool: str | None, master: int | None, wait: bool, timeout_s: float) -> None:
    with _chosen(server, pool, master) as chosen:
        chosen.change(lambda steering, pool, address: steering.set_admin(pool, address, state, who()))
        pools = ", ".join(key[0] for key in chosen.slots)
        click.echo(f"{server} (pool {pools}): {state.name.lower()}, {chosen.left() or '0 in flight'}")
        if wait:
            _wait(chosen, timeout_s)
            click.echo(f"{server}: {chosen.nothing()}")


def _wait(chosen: Chosen, timeout_s: float) -> None:
    """Wait until nothing is left on the server, and tell now and then what is left. Raises ClickException after the timeout."""
    begun = told = time.monotonic()
    looked = begun - _SESSIONS_LOOK_S
    while True:
        now = time.monotonic()
        if chosen.in_flight:
            chosen.busy_ms = now_ms()
        elif now >= looked + _SESSIONS_LOOK_S:
            looked = now  # a look at sessions may go through a whole table
            if not chosen.left():
                return
        if not chosen.segment.masters():
            raise click.ClickException(f"the instance has ended, with {chosen.left() or 'nothing left'}")
        if now >= begun + timeout_s:
            if not (left := chosen.left(" still")):
                return
            raise click.ClickException(f"{left} after {timeout_s:g} s")
        if now >= told + _TELL_S:
            told = now
            if left := chosen.left():
                click.echo(left)
        time.sleep(_WAIT_LOOK_S)


def _waits(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--timeout", "timeout_s", type=Number(min=0), default=300.0, show_default=True,
                           help="Seconds to wait at most; then the exit code is 1.")(command)
    return click.option("--wait", is_flag=True, help="Wait until nothing is left on it.")(command)


@click.command()
@_server
@_pool
@_master
@_waits
def drain(server: str, pool: str | None, master: int | None, wait: bool, timeout_s: float) -> None:
    """Send SERVER no new requests; those that it has go on, and so do its sessions in pools that keep them.

    With --wait it tells what is left: requests in flight, and sessions. Sessions that are not stored (the modes cookie and route)
    show by their requests: none counts as left once none has come for a minute, or for sticky.idle seconds where that is set.
    """
    _set_state(Admin.DRAIN, server, pool, master, wait, timeout_s)


@click.command()
@_server
@_pool
@_master
@_waits
def maintenance(server: str, pool: str | None, master: int | None, wait: bool, timeout_s: float) -> None:
    """Like drain, and SERVER is not checked any more."""
    _set_state(Admin.MAINTENANCE, server, pool, master, wait, timeout_s)


@click.command()
@_server
@_pool
@_master
def ready(server: str, pool: str | None, master: int | None) -> None:
    """Let SERVER have requests again, after drain or maintenance."""
    _set_state(Admin.READY, server, pool, master, wait=False, timeout_s=0)


@click.command()
@_server
@click.argument("weight", metavar="WEIGHT")
@_pool
@_master
def weight(server: str, weight: str, pool: str | None, master: int | None) -> None:
    """Give SERVER another WEIGHT (1 to 1000), or "default" for that of the configuration."""
    if weight != "default" and not (re.fullmatch(r"0*[0-9]{1,4}", weight) and 1 <= int(weight[-4:]) <= 1000):
        raise click.BadParameter(f'{shown(weight)} is no weight; expected 1 to 1000, or "default"', param_hint="WEIGHT")
    number = None if weight == "default" else int(weight[-4:])
    with _chosen(server, pool, master) as chosen:
        chosen.change(lambda steering, pool, address: steering.set_weight(pool, address, number, who()))
        click.echo(f"{server} (pool {', '.join(key[0] for key in chosen.slots)}): weight {weight}")


@click.command()
@_server
@click.option("--pool", metavar="NAME", required=True, help="The pool that it joins.")
@click.option("--weight", type=int, default=1, show_default=True, help="Its share of the load against the other servers.")
@click.option("--max-connections", type=int, default=0, help="The most requests in flight on it; 0: no limit.")
@click.option("--backup", is_flag=True, help="Use it only while no other server can be used.")
@_master
def add(server: str, pool: str, weight: int, max_connections: int, backup: bool, master: int | None) -> None:
    """Add SERVER to a pool of the running instance, until it is removed.

    Checks of the pool begin at once. A reload keeps it; the state file, if there is one, keeps it over a restart.
    """
    segment = running_segment(master)
    steering = Steering(segment, Ledger(segment, takes_row=False), States(segment))
    try:
        address = steering.add_server(pool, server, weight, max_connections, backup, who=who())
    except SteeringError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"{address} (pool {pool}): added")


@click.command()
@_server
@_pool
@_master
@_waits
def remove(server: str, pool: str | None, master: int | None, wait: bool, timeout_s: float) -> None:
    """Remove SERVER: it gets no new requests, and those that it has finish.

    A server of the configuration is back after the next reload.
    """
    with _chosen(server, pool, master) as chosen:
        chosen.change(lambda steering, pool, address: steering.remove_server(pool, address, who=who()))
        click.echo(f"{server} (pool {', '.join(key[0] for key in chosen.slots)}): removed, {chosen.in_flight} in flight")
        if wait:
            _wait(chosen, timeout_s)
            click.echo(f"{server}: nothing in flight any more")
