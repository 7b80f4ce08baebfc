"""What other balancers have in flight, as load that is added at each pick; and the end of all that other balancers have told.

Of each server there is one number, which counts as load beside what is in flight here. It is part of the column that also counts
penalties, so a pick looks at no cell more than without other balancers. One process writes it, a few times a second. When that
process or what it goes by is gone, the controller takes all of it back within a second.

Killed in between, the writer leaves column and sum different under the lock, whose next owner adds the sum up anew (`rows`).
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from prefork_lb.shared import layout as at
from prefork_lb.shared.balancers import write_balancers
from prefork_lb.shared.key_claims import KeyShares
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms

SILENT_MS = 1000
"""A balancer that has not shared for so long goes on by itself."""
_TOGETHER = 64  # servers that are written under the lock at a time: 30 us


Item = TypeVar("Item")


class Elsewhere:
    """A process' hand on what other balancers have told this one."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._loads = segment.cells[segment.layout.column(at.C_ELSEWHERE)]
        self._shares = KeyShares(segment, ledger)

    @property
    def loads(self) -> Sequence[int]:
        """By slot."""
        return self._loads

    def set(self, loads: Mapping[int, int]) -> None:
        """The load of these slots is this now, 0 or more, and that of all others none. Takes the ledger's lock."""
        known = self._loads.tolist()
        changed = [(slot, load) for slot, load in loads.items() if known[slot] != load]
        changed += [(slot, 0) for slot, load in enumerate(known) if load and slot not in loads]
        for some in _batched(changed):
            with self._ledger.locked():
                for slot, load in some:
                    before = self._loads[slot]
                    self._loads[slot] = load
                    self._ledger.penalties[slot] += load - before

    def note_round(self, microseconds: int) -> None:
        """This balancer has shared with others now, which took so long."""
        self._segment.cells[at.H_ROUND_US] = microseconds
        self._segment.cells[at.H_TOGETHER] = now_ms()

    @property
    def is_together(self) -> bool:
        """Whether what other balancers have told counts here."""
        return bool(self._segment.cells[at.H_TOGETHER])

    def go_alone_if_silent(self) -> bool:
        """Go on by itself if this balancer has not shared for a second; whether that was so. One comparison as long as it has.

        What a process that was stopped has written since then is taken back as well.
        """
        since = self._segment.cells[at.H_TOGETHER]
        is_silent = bool(since) and now_ms() - since > SILENT_MS
        if is_silent or not since and self._is_left():
            self.go_alone()
        return is_silent

    def go_alone(self) -> None:
        """Forget what other balancers have told; of each limit this one uses the part that is meant for that. Takes the lock."""
        self._segment.cells[at.H_TOGETHER] = 0
        self.set({})
        self._shares.set({})
        states = self._states
        for some in _batched(range(self._segment.layout.servers)):
            with self._ledger.locked():
                for slot in some:
                    states.go_alone(slot)
                    if states.checked_elsewhere[slot]:
                        states.checked_elsewhere[slot] = 0

    def forget(self) -> None:
        """This balancer shares with no other any more: each limit is its own again. Takes the lock."""
        if any(self._segment.cells[self._segment.layout.column(at.C_SLOTS_ALONE)]):
            with self._ledger.locked():
                for slot in range(self._segment.layout.servers):
                    self._states.set_slots(slot, None, None)
        if self.is_together or self._is_left():
            self.go_alone()
        write_balancers(self._segment, [])

    def _is_left(self) -> bool:
        return any(self._loads) or self._shares.are_there()


def _batched(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start:start + _TOGETHER] for start in range(0, len(items), _TOGETHER))
