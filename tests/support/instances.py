"""The instances that run on this machine, as shared memory has them."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from prefork_lb.cli.running import running_segment
from prefork_lb.shared.events import EventKind, recent
from prefork_lb.shared.finding import open_segment, removed_segments, segment_names
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.view import InstanceView, view

Seen = TypeVar("Seen")


def instances() -> list[InstanceView]:
    """The instances whose gunicorn master runs.

    Tests ask for them many times a second, and a search for segments that have lost their name looks at the descriptors of all
    processes on the machine. So those are searched for only when none has a name.
    """
    return _of_running(view)


def standing() -> set[int]:
    """The workers of all instances that have put their configuration into force. A worker that starts joins a moment before."""
    return set().union(*_of_running(_standing))


def _standing(segment: Segment) -> set[int]:
    told = {event.who for event in recent(segment) if event.kind == EventKind.WORKER_STARTED}
    return {worker.pid for worker in view(segment).workers if f"worker {worker.pid}" in told}


def instance_of(master: int) -> InstanceView:
    """That of this gunicorn master."""
    return next(each for each in instances() if each.master == master)


def usable(master: int) -> set[str]:
    """The servers of this master's instance that get requests."""
    return {server.address for server in instance_of(master).servers if server.usable}


def set_admin(master: int, pool: str, state: Admin, *addresses: str) -> None:
    """As an operator does, in the instance with this gunicorn master."""
    segment = running_segment(master)
    steering = Steering(segment, Ledger(segment, takes_row=False), States(segment))
    for address in addresses:
        steering.set_admin(pool, address, state, "somebody")


def _of_running(look: Callable[[Segment], Seen]) -> list[Seen]:
    return _at(look, filter(None, map(open_segment, segment_names()))) or _at(look, removed_segments(None))


def _at(look: Callable[[Segment], Seen], segments: Iterable[Segment]) -> list[Seen]:
    found = []
    for segment in segments:
        if segment.masters():
            found.append(look(segment))
        segment.close()
    return found
