"""What one balancer finds out of a server holds on all: ejections, and the results of checks."""
from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from prefork_lb.cluster.report import Checked, Ejected, Key, Report, Results
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.table_lookup import server_at
from prefork_lb.shared.transitions import Check, Ejection, StateEvent

# A balancer that hears nothing for so long of the one that checks makes its own checks.
_HOLDS_MS = 1500
_AGAIN_S = 2.0  # results are told again after so long: the store may have lost them
_LEAST_MS = 100  # the rest of an ejection that is worth telling

log = logging.getLogger("prefork_lb")


class SharedEjections:
    """A server that one balancer has ejected is ejected on all, for what is left of the time. Each then makes its own trial."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._adopted: dict[int, int] = {}  # by slot the number of the newest ejection that another balancer had told
        self._heard: dict[tuple[str, int, str, str], int] = {}  # by balancer, run and server the newest ejection

    def look(self, servers: Mapping[Key, int]) -> list[Ejected]:
        """This balancer's own ejections."""
        states, now, found = self._states, now_ms(), []
        for (pool, address), slot in servers.items():
            left = states.ejected_until[slot] - now
            number = states.times_ejected[slot]
            if states.ejection[slot] == Ejection.EJECTED and left >= _LEAST_MS and number != self._adopted.get(slot):
                found.append(Ejected(pool, address, number, left))
        return found

    def adopt(self, servers: Mapping[Key, int], reports: Iterable[Report]) -> None:
        """Eject what others have ejected since their last reports, if another usable server of the pool is left."""
        for report in reports:
            for ejected in report.ejected:
                heard = report.balancer, report.run, ejected.pool, ejected.address
                key = ejected.pool, ejected.address
                slot = servers.get(key)
                if slot is None or self._heard.get(heard) == ejected.number:
                    continue
                self._heard[heard] = ejected.number
                others = [other for (pool, _), other in servers.items() if pool == ejected.pool and other != slot]
                with self._ledger.locked():
                    states = self._states
                    if server_at(self._segment, slot) != key:
                        continue  # the slot was freed since `servers` was read, and may be another server's
                    if states.ejection[slot] == Ejection.NONE and any(map(states.is_usable, others)):
                        states.eject(slot, StateEvent.FAILED, now_ms() + ejected.left_ms,
                                     f"balancer {report.balancer} has ejected it")
                        self._adopted[slot] = states.times_ejected[slot]


class SharedChecks:
    """One balancer's checks hold for all: those of the first one by name that has any. The others go by what it tells."""

    def __init__(self, name: str, segment: Segment, ledger: Ledger, states: States) -> None:
        self._name = name
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._told: list[Checked] = []
        self._told_at = 0.0
        self.number = 0  # of the newest results that this balancer has told
        self._heard: Results | None = None

    def checker(self, can_check: bool, others: Iterable[Report]) -> str:
        """The balancer whose checks hold; empty: there is none."""
        return min([report.balancer for report in others if report.can_check] + [self._name] * can_check, default="")

    def results(self, servers: Mapping[Key, int], run: int, now: float) -> Results | None:
        """This balancer's results, if they are others than those that it has told, or may be lost. `now`: the monotonic clock."""
        states = self._states
        found = [Checked(*key, states.check[slot], states.note(slot)) for key, slot in servers.items()
                 if states.check[slot] != Check.NONE]
        if found != self._told or not self.number:
            self.number += 1
        elif now - self._told_at < _AGAIN_S:
            return None
        self._told, self._told_at = found, now
        return Results(self._name, run, self.number, found)

    def wants(self, checker: Report) -> bool:
        """Whether the checker has told other results since those that were read last."""
        heard = self._heard
        known = (heard.balancer, heard.run, heard.number) if heard is not None else None
        return checker.checks > 0 and known != (checker.balancer, checker.run, checker.checks)

    def read(self, results: Results) -> None:
        """These are the newest that the store has."""
        self._heard = results

    def adopt(self, servers: Mapping[Key, int], checker: Report) -> None:
        """Go by the newest results of the checker, which is there."""
        if self._heard is None or (self._heard.balancer, self._heard.run) != (checker.balancer, checker.run):
            return
        states, until = self._states, now_ms() + _HOLDS_MS
        for result in self._heard.checked:
            slot = servers.get((result.pool, result.address))
            # A server that is not checked here has other rules here.
            if slot is None or states.check[slot] == Check.NONE:
                continue
            states.checked_elsewhere[slot] = until
            if (states.check[slot], states.note(slot)) != (result.state, result.note):
                with self._ledger.locked():
                    self._set(slot, result)

    def let_go(self, servers: Mapping[Key, int]) -> None:
        """This balancer makes its own checks from now on."""
        self._heard = None
        for slot in servers.values():
            if self._states.checked_elsewhere[slot]:
                self._states.checked_elsewhere[slot] = 0

    def _set(self, slot: int, result: Checked) -> None:
        if server_at(self._segment, slot) != (result.pool, result.address):
            return  # the slot was freed since `servers` was read, and may be another server's
        before, wanted = Check(self._states.check[slot]), Check(result.state)
        if before is Check.NONE or (wanted is Check.CHECKING and before is not Check.UP):
            return  # its checks have just ended here; or it is down here, and nobody knows better yet
        self._states.set_check(slot, wanted, result.note)
        if before is not wanted:
            log.warning("pool %s: server %s is %s by the checks of another balancer: %s", result.pool, result.address,
                        wanted.name.lower(), result.note)
