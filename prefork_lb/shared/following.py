"""A pool's servers made those of a list, by discovery.

New servers join first; then those that the list does not have any more are let go. They stay for as long as no server of the list
can take requests, or one still waits for its first checks. A list may be as long as the table, and every worker waits for the
lock, so it is worked off in parts. A process that is killed leaves each server as it was or as it is to be, and the next look
does the rest.
"""
from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prefork_lb.errors import NoRoom, Refused
from prefork_lb.net.address import parse_address
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Changes, member
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import AddedBy, ServerEntry, Standing
from prefork_lb.shared.transitions import Check

_AT_ONCE = 32
_NAMED = 5


@dataclass(slots=True)
class Followed:
    """What has become of a list: addresses, and why some servers are not in the pool."""

    joined: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_done: bool = True  # else there are servers to be let go later, or there is no room at the moment

    @property
    def in_words(self) -> str:
        """What has changed, some servers by name; empty: nothing has."""
        parts = [("joined", self.joined), ("left", self.left), ("changed", self.changed)]
        return "; ".join(f"{len(names)} {what}: {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"
                         for what, names in parts if names)

    def add(self, other: Followed) -> None:
        """Take over what has happened since."""
        for mine, more in ((self.joined, other.joined), (self.left, other.left), (self.changed, other.changed)):
            mine.extend(more)


def follow_list(segment: Segment, ledger: Ledger, states: States, pool: str, wanted: Mapping[str, ServerEntry]) -> Followed:
    """Let the pool have these servers, by their canonical addresses, beside those of its configuration and of operators.

    Raises NotThere when there is no such pool. Takes the lock, several times for many changes.
    """
    done = Followed()
    while True:
        with ledger.locked():
            steps = _Steps(segment, ledger, states, pool, wanted, done)
            if not steps.take(_AT_ONCE):
                return done


class _Steps:
    """The changes that are left, as one section sees them. The ledger's lock must be held during its life."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, pool: str, wanted: Mapping[str, ServerEntry],
                 done: Followed) -> None:
        self._segment, self._states, self._pool, self._wanted, self._done = segment, states, pool, wanted, done
        self._is_full = False
        self._changes = Changes(segment, ledger, states, pool)
        done.is_done, done.problems = True, []
        # By canonical address: the slots of all servers that the pool has.
        self._there = {_canonical(address): slot for address, slot in self._changes.table.servers(pool).items()}

    def take(self, most: int) -> bool:
        """Take so many steps; whether there may be more."""
        return sum(1 for _ in itertools.islice(self._all(), most)) == most

    def _all(self) -> Iterator[None]:
        yield from self._bring_in()
        yield from self._let_go()

    def _bring_in(self) -> Iterator[None]:
        states, done = self._states, self._done
        for address, rules in self._wanted.items():
            slot = self._there.get(address)
            if slot is None:
                if self._add(rules):
                    yield
            elif self._is_ours(slot):
                if states.leaving[slot]:
                    states.keep(slot)
                    done.joined.append(address)
                    yield
                if member(self._segment, slot, rules.address).rules != rules:
                    self._changes.change(slot, rules)
                    done.changed.append(address)
                    yield

    def _add(self, rules: ServerEntry) -> bool:
        # A list may have thousands more than there is room for, and every worker waits.
        if self._is_full and self._changes.table.find(self._pool, rules.address) is None:
            return False
        try:
            slot = self._changes.add(rules, "", AddedBy.DISCOVERY)
        except NoRoom as exc:
            self._is_full, self._done.is_done = True, False
            self._note(str(exc))
            return False
        except Refused as exc:
            self._note(str(exc))
            return False
        self._there[rules.address] = slot
        self._done.joined.append(rules.address)
        return True

    def _note(self, problem: str) -> None:
        if problem not in self._done.problems:
            self._done.problems.append(problem)

    def _let_go(self) -> Iterator[None]:
        gone = {address: slot for address, slot in self._there.items()
                if address not in self._wanted and self._is_ours(slot) and not self._states.leaving[slot]}
        if gone and not self._is_replaced():
            self._done.is_done = False
            return
        for address, slot in gone.items():
            self._states.let_go(slot)
            self._done.left.append(address)
            yield

    def _is_replaced(self) -> bool:
        """Whether the pool can do without the servers that have gone from the list."""
        if not self._wanted:
            return True  # the pool discovers nothing any more
        states, found = self._states, [slot for address, slot in self._there.items() if address in self._wanted]
        return any(map(states.is_usable, found)) and not any(
            states.check[slot] == Check.CHECKING and states.admin[slot] == Admin.READY for slot in found)

    def _is_ours(self, slot: int) -> bool:
        return bool(self._states.standing[slot] == Standing.ADDED and self._states.source[slot] == AddedBy.DISCOVERY)


@functools.lru_cache(4096)
def _canonical(address: str) -> str:
    return str(parse_address(address))
