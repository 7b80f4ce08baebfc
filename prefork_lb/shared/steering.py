"""Changes of a running instance: states, weights, servers that come and go. For commands and the admin interface alike.

A change is made under the ledger's lock, whole or not at all, and is in force for all workers at their next pick.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prefork_lb.errors import BadValue, NotThere, Outdated, Refused, shown
from prefork_lb.net.address import parse_address
from prefork_lb.shared.events import EventKind, record_event, record_server_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Changes
from prefork_lb.shared.scaling_state import Roll, Scaling, ask_for_roll, ask_for_servers, asked_servers, scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import (
    MOST_SPLIT_WEIGHT,
    ConfiguredSplit,
    set_weights,
    version_of,
    weights_in_force,
    write_set_weights,
)
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.table import MOST_CONNECTIONS, MOST_WEIGHT, AddedBy, ServerEntry
from prefork_lb.shared.table_lookup import owner_of, pool_number, slots_by_key
from prefork_lb.words import count

FROM_CONFIGURATION = -1
"""Of a weight or a limit: that of the configuration applies again."""
_DEFAULT = "that of the configuration"

Expectation = Callable[[str], bool]
"""Whether a server of this version (`States.version`) is the one that the operator has seen."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator changes of a server. What is None stays as it is."""

    admin: Admin | None = None
    weight: int | None = None
    max_connections: int | None = None  # 0: no limit


class Steering:
    """What operators do to one instance. `who` names the operator: a user, or a token of the admin interface.

    Servers are named by pool and address, in any spelling of the address. Raises NotThere when there is no such server or pool.
    """

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states

    def set_admin(self, pool: str, address: str, state: Admin, who: str) -> None:
        """Set the administrative state."""
        self.change(pool, address, Change(admin=state), who)

    def set_weight(self, pool: str, address: str, weight: int | None, who: str) -> None:
        """Set the weight; None: that of the configuration. Raises BadValue."""
        self.change(pool, address, Change(weight=FROM_CONFIGURATION if weight is None else weight), who)

    def set_limit(self, pool: str, address: str, limit: int | None, who: str) -> None:
        """Set the most requests in flight, 0: no limit; None: that of the configuration. Raises BadValue."""
        self.change(pool, address, Change(max_connections=FROM_CONFIGURATION if limit is None else limit), who)

    def change(self, pool: str, address: str, change: Change, who: str, is_expected: Expectation | None = None) -> list[str]:
        """Change a server, whole or not at all; what is another now, in words. Raises BadValue and Outdated."""
        for value, least, most, what in ((change.weight, 1, MOST_WEIGHT, "weight"),
                                         (change.max_connections, 0, MOST_CONNECTIONS, "max_connections")):
            if value is not None and value != FROM_CONFIGURATION:
                _check(value, least, most, what)
        with self._server(pool, address) as slot:
            self._expect(slot, is_expected)
            done = list(self._apply(slot, change))
            for kind, text in done:
                record_server_event(self._segment, slot, kind, text, who)
        return [f"{kind} {text}" for kind, text in done]

    def _apply(self, slot: int, change: Change) -> Iterator[tuple[EventKind, str]]:
        """Change the server in this slot; a kind of event and words for each thing that was another before."""
        states = self._states
        if change.admin is not None and states.leaving[slot]:
            raise Refused("the server is leaving: what has added it does not want it any more, and it is removed when nothing is "
                          "left on it")
        if change.admin is not None and (admin := Admin(states.admin[slot])) is not change.admin:
            states.set_admin(slot, change.admin)
            yield EventKind.ADMIN, f"{change.admin.name.lower()}, before: {admin.name.lower()}"
        if change.weight is not None and (weight := states.weight_set[slot]) != (wanted := max(change.weight, 0)):
            states.set_weight(slot, wanted)
            yield EventKind.WEIGHT, f"{wanted or _DEFAULT}, before: {weight or _DEFAULT}"
        if change.max_connections is not None:
            limit, wanted_limit = states.limit_set(slot), _configurable(change.max_connections)
            if limit != wanted_limit:
                states.set_limit(slot, wanted_limit)
                yield EventKind.LIMIT, f"{_limit_in_words(wanted_limit)}, before: {_limit_in_words(limit)}"

    def _expect(self, slot: int, is_expected: Expectation | None) -> None:
        version = self._states.version(slot)
        if is_expected is not None and not is_expected(version):
            raise Outdated(f"the server was changed meanwhile: it is {version} now (state, weight and limit that were set)")

    def add_server(self, pool: str, address: str, weight: int = 1, max_connections: int = 0, backup: bool = False, *,
                   who: str, source: AddedBy = AddedBy.OPERATOR) -> str:
        """Add a server to a pool; its address as the table has it. 0 connections: no limit. `source` alone may remove it.

        Raises BadValue, and Refused when it is there already, needs what only a configuration can give, or there is no room.
        """
        _check(weight, 1, MOST_WEIGHT, "weight")
        _check(max_connections, 0, MOST_CONNECTIONS, "max_connections")
        name = _canonical(address)
        with self._ledger.locked():
            name = self._spelling(pool, name)
            self._members(pool).add(ServerEntry(name, weight, max_connections, backup), who, source)
        return name

    def remove_server(self, pool: str, address: str, *, who: str, is_expected: Expectation | None = None,
                      only_idle: bool = False, source: AddedBy = AddedBy.OPERATOR) -> int:
        """Remove a server from a pool: it gets no new request, and those that it has finish. Its slot, where they are counted
        for as long as `keys.owner_of` says that the slot is its own.

        Raises Refused for one that another source has added, for the last server that is no backup of a pool that may not be
        empty, and, with `only_idle`, for one with requests in flight; Outdated.
        """
        with self._server(pool, address) as slot:
            self._expect(slot, is_expected)
            if only_idle and (in_flight := self._ledger.totals[slot]):
                raise Refused(f"{in_flight} in flight on {address}: drain it and wait, or force it; they are finished all the "
                              "same")
            name = _canonical(address)
            return self._members(pool).remove(self._spelling(pool, name), who, source)

    def let_go(self, pool: str, address: str) -> None:
        """Drain a server that its source does not want any more; it is removed when nothing is left on it."""
        with self._server(pool, address) as slot:
            self._states.let_go(slot)

    def keep(self, pool: str, address: str) -> None:
        """Have a server again that was let go."""
        with self._server(pool, address) as slot:
            self._states.keep(slot)

    def _members(self, pool: str) -> Changes:
        return Changes(self._segment, self._ledger, self._states, pool)

    def scale(self, pool: str, servers: int | None, who: str) -> None:
        """Have so many servers in a pool that scales, at most its `max`; None: as many as its rule wants.

        Raises BadValue, and Refused for a pool that does not scale.
        """
        with self._ledger.locked():
            number, scaling = self._scaled(pool)
            if servers is not None:
                _check(servers, 0, scaling.most, "number of servers")
            before = asked_servers(self._segment, number)
            if servers != before:
                ask_for_servers(self._segment, number, servers)
                told = f"{_servers_in_words(servers)}, before: {_servers_in_words(before)}"
                record_event(self._segment, EventKind.SCALED, told, pool, who=who)

    def roll(self, pool: str, surge: int, who: str) -> None:
        """Replace the servers of a pool that scales by new ones, `surge` at a time.

        Raises BadValue, and Refused for a pool that does not scale, or whose servers are being replaced already.
        """
        with self._ledger.locked():
            number, scaling = self._scaled(pool)
            _check(surge, 1, scaling.most, "number of new servers at a time")
            if scaling.is_rolling:
                raise Refused(f"the servers of the pool {pool} are being replaced already")
            ask_for_roll(self._segment, number, Roll(now_ms(), surge))
            record_event(self._segment, EventKind.AUDIT, f"roll, {count(surge, 'new server')} at a time", pool, who=who)

    def set_split(self, split: ConfiguredSplit, weights: Mapping[str, int | None], who: str,
                  is_expected: Expectation | None = None) -> str:
        """Set weights of a split, whole or not at all; None: that of the configuration, and pools that are left out stay as they
        are. What is in force now, in words, if it is another; else "". Raises BadValue, Outdated, and Refused without room.
        """
        for pool, weight in weights.items():
            if pool not in split.weights:
                raise BadValue(f"{shown(pool)} is no pool of this split; it has {', '.join(split.weights)}")
            if weight is not None:
                _check(weight, 0, MOST_SPLIT_WEIGHT, "weight")
        with self._ledger.locked():
            set_ones = set_weights(self._segment).get(split.route, {})
            before = weights_in_force(split.weights, set_ones)
            if is_expected is not None and not is_expected(version_of(before)):
                raise Outdated(f"the split was changed meanwhile: it is {_split_in_words(before)} now")
            wanted: dict[str, int | None] = {**set_ones, **weights}
            after = {pool: configured if (weight := wanted.get(pool)) is None else weight
                     for pool, configured in split.weights.items()}
            if not any(after.values()):
                raise BadValue("every pool would have the weight 0; at least one must have more")
            write_set_weights(self._segment, split.route, weights)
            if after == before:
                return ""
            told = f"{_split_in_words(after)}, before: {_split_in_words(before)}"
            record_event(self._segment, EventKind.SPLIT, f"{told} (route {split.place}: {split.asks})", who=who)
        return told

    def _scaled(self, pool: str) -> tuple[int, Scaling]:
        """The number of a pool that scales, and its scaling. The lock must be held."""
        number = pool_number(self._segment, pool)
        if number is None:
            raise NotThere(f"there is no pool {shown(pool)}")
        scaling = scaling_of(self._segment, number)
        if scaling is None:
            raise Refused(f"the pool {pool} does not scale: there is no [pools.{pool}.scaling], or no controller has seen it")
        return number, scaling

    @contextmanager
    def _server(self, pool: str, address: str) -> Iterator[int]:
        """The slot of a server, under the lock."""
        with self._ledger.locked():
            try:
                slot = slots_by_key(self._segment).get((pool, self._spelling(pool, _canonical(address))))
            except BadValue:
                slot = None
            if slot is None:
                raise NotThere(f"pool {shown(pool)} has no server {shown(address)}")
            yield slot

    def _spelling(self, pool: str, name: str) -> str:
        """How the table writes the address of this server, be it in the pool or removed. The lock must be held."""
        owners = (owner_of(self._segment, slot) for slot in range(self._segment.layout.servers))
        addresses = [owner[1] for owner in owners if owner is not None and owner[0] == pool]
        return name if name in addresses else next((each for each in addresses if _canonical(each) == name), name)


def _canonical(address: str) -> str:
    """The one spelling of an address. Raises BadValue."""
    try:
        return str(parse_address(address))
    except ValueError as exc:
        raise BadValue(str(exc)) from exc


def _configurable(value: int) -> int | None:
    return None if value == FROM_CONFIGURATION else value


def _split_in_words(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{pool} {weight}" for pool, weight in weights.items())


def _limit_in_words(limit: int | None) -> str:
    return _DEFAULT if limit is None else str(limit) if limit else "none"


def _servers_in_words(servers: int | None) -> str:
    return "auto" if servers is None else count(servers, "server")


def _check(value: int, least: int, most: int, what: str) -> None:
    if not least <= value <= most:
        raise BadValue(f"{shown(value)} is no {what}; expected {least} to {most}")
