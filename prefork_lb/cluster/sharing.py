"""One exchange after the other: what this balancer knows goes to the others, and what they know is written for its workers."""
from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from prefork_lb.clock import Clock, monotonic
from prefork_lb.cluster.key_limits import SharedKeyLimits
from prefork_lb.cluster.limits import SharedLimits
from prefork_lb.cluster.loads import Levelings, Tables
from prefork_lb.cluster.others import Others
from prefork_lb.cluster.rates import SharedRates
from prefork_lb.cluster.report import VERSION, Report, decode_report, decode_results, encode_report, encode_results
from prefork_lb.cluster.server_list import Counts, ServerList, Servers
from prefork_lb.cluster.sessions import SharedSessions
from prefork_lb.cluster.settings import SharedSettings
from prefork_lb.cluster.splits import SharedSplits
from prefork_lb.cluster.store import Received, Sent, Store, StoreError
from prefork_lb.cluster.verdicts import SharedChecks, SharedEjections
from prefork_lb.shared.balancers import Balancer, write_balancers
from prefork_lb.shared.elsewhere import Elsewhere
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering

_RESULTS_EVERY_S = 0.25

log = logging.getLogger("prefork_lb")


class Sharing:
    """This balancer's part. `exchange` is to be called again and again, from one thread."""

    def __init__(self, name: str, segment: Segment, ledger: Ledger, states: States, store: Store, clock: Clock = monotonic,
                 rng: random.Random | None = None, sessions: SharedSessions | None = None,
                 rates: SharedRates | None = None, key_limits: SharedKeyLimits | None = None) -> None:
        """`name` is this balancer's, which no other one has. `sessions`: None when learned ones are not shared; `rates`: None
        when there are no limits of a rate; `key_limits`: None when there are none of requests at once."""
        self._sessions, self._rates, self._key_limits = sessions, rates, key_limits
        self.name = name
        self._segment, self._ledger, self._store, self._clock = segment, ledger, store, clock
        self._elsewhere = Elsewhere(segment, ledger, states)
        self._list = ServerList(segment)
        self._counts = Counts(segment, states)
        self._others = Others(clock)
        self._tables = Tables()
        self._loads = Levelings(self._counts, self._tables)
        steering = Steering(segment, ledger, states)
        self._settings, self._splits = SharedSettings(states, steering), SharedSplits(segment, ledger, steering)
        self._ejections = SharedEjections(segment, ledger, states)
        self._checks = SharedChecks(name, segment, ledger, states)
        self._results_at = 0.0
        self._limits = SharedLimits(segment, ledger, states, self._counts, clock)
        self._run, self._number, self._round_us = (rng or random.Random()).getrandbits(62), 0, 0
        self._store_ahead_ms = 0.0  # the store's clock against this host's monotonic one
        self._present: dict[str, Report] = {}
        self._began = clock()

    def exchange(self) -> Received:
        """One round trip, and what comes of it. Raises StoreError; this balancer goes on by itself then."""
        servers = self._list.read()
        in_flight = self._counts.in_flight(servers.slots)
        sent = self._sent(servers, in_flight)
        begun = self._clock()
        try:
            received = self._store.exchange(sent)
        except StoreError as exc:
            self.go_alone(str(exc))
            raise
        ended = self._clock()
        self._round_us = int((ended - begun) * 1e6)
        self._store_ahead_ms = received.now_ms - ended * 1000
        if not self._elsewhere.is_together:
            self._tell(EventKind.BALANCER_JOINED, self.name, "shares with others from now on")
        # Before what others tell is written: the controller takes that back only from a balancer that has shared.
        self._elsewhere.note_round(self._round_us)
        self._take(servers, in_flight, received)
        self._write_balancers()
        return received

    def go_alone(self, why: str) -> None:
        """Go on without the others, because of `why`."""
        if self._rates is not None:
            self._rates.go_alone()
        if self._elsewhere.is_together:
            self._elsewhere.go_alone()
            log.error("this balancer goes on by itself: %s", why)
            self._tell(EventKind.BALANCER_LEFT, self.name, f"goes on by itself: {why}")
        self._present = {}
        self._write_balancers()

    def leave(self) -> None:
        """End in good order: the others need not wait."""
        self._elsewhere.go_alone()
        write_balancers(self._segment, [])
        self._store.leave(self.name)

    def _sent(self, servers: Servers, in_flight: Sequence[int]) -> Sent:
        others = list(self._present.values())
        balancers = len(others) + 1
        needs = self._limits.needs(servers, in_flight, balancers)
        slots, now_ms = servers.slot_of, int(self._clock() * 1000 + self._store_ahead_ms)
        can_check = self._counts.has_checks(servers.slots)
        results = None
        if can_check and self._checks.checker(can_check, others) == self.name and self._clock() >= self._results_at:
            self._results_at = self._clock() + _RESULTS_EVERY_S
            results = self._checks.results(slots, self._run, self._clock())
        self._number += 1
        report = Report(VERSION, self.name, self._run, self._number, servers.digest, list(in_flight), needs, self._round_us,
                        can_check, self._checks.number, self._settings.look(slots, now_ms), self._ejections.look(slots),
                        self._rates.look(balancers) if self._rates is not None else [], self._splits.look(now_ms),
                        self._key_limits.look(balancers) if self._key_limits is not None else [])
        sent = Sent(self.name, encode_report(report), results=encode_results(results) if results is not None else None,
                    gone=self._others.gone())
        sent.tables, sent.wanted_tables = self._tables.to_send(servers, self._number), self._tables.unknown(others)
        checker = self._checker(can_check, others)
        sent.results_of = checker.balancer if checker is not None and self._checks.wants(checker) else ""
        if any(self._counts.limits(servers.slots)):
            by_name = {other.balancer: self._tables.needs(other) for other in others}
            by_name[self.name] = dict(zip(servers.keys, needs, strict=True))
            names = sorted(by_name)
            sent.parts = self._limits.wanted(servers, in_flight, [by_name[name] for name in names], names.index(self.name))
        if self._sessions is not None:
            sent.sessions, sent.sessions_after = self._sessions.look(servers.keys), self._sessions.after
        return sent

    def _take(self, servers: Servers, in_flight: Sequence[int], received: Received) -> None:
        self._tables.take(received.tables)
        reports = [report for data in received.reports
                   if (report := decode_report(data)) is not None and report.balancer != self.name]
        self._others.hear(reports)
        present = self._others.present()
        self._note_presence(present)
        slots = servers.slot_of
        names = sorted([self.name, *self._present])
        place = names.index(self.name)
        self._elsewhere.set(self._loads.of(servers, in_flight, present, place))
        self._limits.take(servers, received.parts, len(names), place)
        self._settings.adopt(slots, [(report.balancer, setting) for report in present for setting in report.settings])
        self._splits.adopt((report.balancer, setting) for report in present for setting in report.splits)
        self._ejections.adopt(slots, present)
        if self._rates is not None:
            self._rates.adopt(present)
        if self._key_limits is not None:
            self._key_limits.adopt(present, names, self.name)
        if self._sessions is not None:
            self._sessions.adopt(servers.keys, received)
        if not self._elsewhere.is_together:
            # The controller has taken this process for gone meanwhile, and some of the above was written after that.
            self._elsewhere.go_alone()
        checker = self._checker(self._counts.has_checks(servers.slots), present)
        if checker is None:
            self._checks.let_go(slots)
            return
        if received.results is not None and (results := decode_results(received.results)) is not None:
            self._checks.read(results)
        self._checks.adopt(slots, checker)

    def _checker(self, can_check: bool, others: Sequence[Report]) -> Report | None:
        """The other balancer whose checks hold; None: this one's do, or nobody's."""
        name = self._checks.checker(can_check, others)
        return next((report for report in others if report.balancer == name), None)

    def _note_presence(self, present: Sequence[Report]) -> None:
        now = {report.balancer: report for report in present}
        for name in sorted(now.keys() - self._present.keys()):
            self._tell(EventKind.BALANCER_JOINED, name, "shares with this one")
        for name in sorted(self._present.keys() - now.keys()):
            self._tell(EventKind.BALANCER_LEFT, name, "is silent, or has ended")
        self._present = now

    def _tell(self, kind: EventKind, name: str, text: str) -> None:
        with self._ledger.locked():
            record_event(self._segment, kind, f"{name} {text}")

    def _write_balancers(self) -> None:
        others, slots = list(self._present.values()), self._list.read().slots
        checker = self._checks.checker(self._counts.has_checks(slots), others)
        now = self._clock()
        found = [Balancer(self.name, True, int(now * 1000), int(self._began * 1000), sum(self._counts.in_flight(slots)),
                          self._round_us, checker == self.name)]
        for report in others:
            heard, since = self._others.heard(report.balancer)
            found.append(Balancer(report.balancer, False, int(heard * 1000), int(since * 1000), sum(report.in_flight),
                                  report.round_us, checker == report.balancer))
        write_balancers(self._segment, found)
