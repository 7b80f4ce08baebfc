"""The servers of a pool that the balancer starts itself: as many as are wanted, each through its life.

A server is started, serves when its check has passed, is drained when it is not needed, and ends. `tick` is called a few times a
second and does what is due; nothing waits. Where servers are replaced, the new one serves before the old one is drained.
"""
from __future__ import annotations

import logging
from dataclasses import dataclass

from prefork_lb.clock import Clock, monotonic
from prefork_lb.errors import SteeringError
from prefork_lb.scaling.backoff import Backoff
from prefork_lb.scaling.driver import Driver, Ended, StartFailed
from prefork_lb.scaling.fleet_pool import FleetPool, PooledServer, Readiness
from prefork_lb.scaling.rolling import Rolling, RollOutcome, RollRequest
from prefork_lb.scaling.scaled_server import ScaledEvent, ScaledServer, ScaledState
from prefork_lb.shared.events import EventKind
from prefork_lb.words import count

_STARTS_A_TICK = 4  # each takes the controller some milliseconds
_MEMORY_LOOK_S = 1.0  # at one server's memory, which takes milliseconds
# Of one that is to serve, and cannot join its pool.
_UNWELCOME = {ScaledState.STARTING: ScaledEvent.LATE, ScaledState.DRAINING: ScaledEvent.DRAINED,
              ScaledState.PARKED: ScaledEvent.DISMISSED}

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How servers are started, ended and replaced. 0: no limit."""

    start_timeout_s: float = 60.0
    drain_timeout_s: float = 300.0
    stop_timeout_s: float = 30.0
    warm_s: float = 0.0  # the pool's slow start
    max_memory_bytes: int = 0
    max_requests: int = 0
    max_age_s: float = 0.0
    replace_after_s: float = 0.0  # that its check has failed


class Fleet:
    """The servers of one pool."""

    def __init__(self, pool: str, settings: FleetSettings, driver: Driver, fleet_pool: FleetPool, readiness: Readiness,
                 clock: Clock = monotonic) -> None:
        self._pool = pool
        self._settings = settings
        self._driver = driver
        self._fleet_pool = fleet_pool
        self._readiness = readiness
        self._clock = clock
        self._members: dict[int, ScaledServer] = {}
        self._is_adopted = False
        self._backoff = Backoff()
        self._rolling = Rolling()
        self._seen: dict[str, PooledServer] = {}
        self._look_at = 0.0  # when a server's memory is looked at again
        self._looked_at: ScaledServer | None = None  # in this tick
        self._last_looked_at = 0  # its number
        self._now = 0.0

    def use(self, settings: FleetSettings) -> None:
        """Go by these from now on. What has failed before is tried again at once."""
        self._settings = settings
        self._backoff.forget()

    @property
    def servers(self) -> list[ScaledServer]:
        """All that have not ended, by number."""
        return [self._members[n] for n in sorted(self._members)]

    def count(self, *states: ScaledState) -> int:
        """How many are in one of these states."""
        return sum(1 for member in self._members.values() if member.state in states)

    @property
    def is_given_up(self) -> bool:
        """Whether none is started for a while, since too many have failed."""
        return self._backoff.is_given_up

    @property
    def roll_outcome(self) -> RollOutcome | None:
        """How the roll of the last `tick` has ended; None: there is none, or it is under way."""
        return self._rolling.outcome

    @property
    def is_empty(self) -> bool:
        """Whether there is no server. Not before what another controller has left was taken up, which may fail at first."""
        return self._is_adopted and not self._members

    def tick(self, wanted: int, roll: RollRequest | None = None) -> None:
        """Do what is due, so that there are `wanted` servers. `roll`: replace those that run, until that has an outcome."""
        self._now = self._clock()
        self._seen = dict(self._fleet_pool.seen())
        if not self._is_adopted:
            self._adopt(roll)
        if self._rolling.use(roll):
            self._backoff.forget()
        for ended in self._driver.ended():
            self._note_ended(ended)
        for member in self.servers:
            self._look_after(member)
        self._looked_at = self._next_to_look_at()
        self._notice_wear()
        self._end_surplus(wanted)
        self._start_missing(wanted)
        if self._rolling.is_under_way:
            self._judge_roll(wanted)
        self._remove_strangers()
        self._readiness.watch({member.address for member in self._in(ScaledState.STARTING) if member.address})

    # -- the life of one ----------------------------------------------------------------------------------------

    def _adopt(self, roll: RollRequest | None) -> None:
        """Take up what the controller before this one has left."""
        for n, (address, since, stop_timeout_s) in self._driver.adopt().items():
            seen = self._seen.get(address)
            if seen is not None:
                state = ScaledState.DRAINING if seen.is_leaving else ScaledState.SERVING
            else:
                state = ScaledState.PARKED if roll is not None and since < roll.before else ScaledState.STARTING
            self._members[n] = ScaledServer(n, since, state, since if state is ScaledState.SERVING else self._now,
                                            self._settings.stop_timeout_s if stop_timeout_s is None else stop_timeout_s,
                                            address, "taken up")
        self._is_adopted = True

    def _look_after(self, member: ScaledServer) -> None:
        """Let time, its check and its requests do their work on one server."""
        age_s = self._now - member.state_since
        if member.state is ScaledState.STARTING:
            member.address = member.address or self._driver.address(member.n)
            if member.address and self._readiness.is_ready(member.address):
                self._join(member, ScaledEvent.READY, f"ready after {self._now - member.since:.1f} s")
            elif age_s >= self._settings.start_timeout_s:
                self._note_late(member)
        elif member.state is ScaledState.SERVING:
            self._backoff.note_well(member.since, age_s)
            self._note_check(member)
        elif member.state is ScaledState.DRAINING:
            if member.address not in self._seen or age_s >= self._settings.drain_timeout_s:
                self._leave(member)
        elif member.state is ScaledState.STOPPING and age_s >= member.stop_timeout_s and not member.is_killed:
            member.is_killed = True
            log.warning("%s has not ended within %g s; it is killed", self._name(member), member.stop_timeout_s)
            self._driver.stop(member.n, hard=True)

    def _start(self) -> bool:
        """Start one more. Whether that could be begun."""
        n = next(n for n in range(1, len(self._members) + 2) if n not in self._members)
        try:
            self._driver.start(n)
        except StartFailed as exc:
            self._note_failure(None, f"cannot be started: {exc}")
            return False
        self._members[n] = ScaledServer(n, self._now, ScaledState.STARTING, self._now, self._settings.stop_timeout_s,
                                        self._driver.address(n), "started")
        log.info("%s is started", self._name(self._members[n]))
        return True

    def _join(self, member: ScaledServer, event: ScaledEvent, why: str) -> None:
        """Let a server serve."""
        try:
            if member.address in self._seen:
                self._fleet_pool.keep(member.address)
            else:
                self._fleet_pool.add(member.address)
        except SteeringError as exc:
            self._note_failure(member, f"cannot join the pool: {exc}")
            self._stop(member, _UNWELCOME[member.state], str(exc))
            return
        member.go_on(event, self._now, why)
        log.info("%s serves: %s", self._name(member), why)
        if event is ScaledEvent.READY:
            self._fleet_pool.tell(EventKind.STARTED, member.address, why)

    def _dismiss(self, member: ScaledServer, why: str) -> None:
        """Let a server end that is not needed."""
        if member.state is ScaledState.SERVING:
            self._fleet_pool.let_go(member.address)
            member.go_on(ScaledEvent.DISMISSED, self._now, why)
            log.info("%s is drained: %s", self._name(member), why)
        else:
            self._stop(member, ScaledEvent.DISMISSED, why)

    def _leave(self, member: ScaledServer) -> None:
        """A drained server leaves the pool."""
        if member.address in self._seen:
            log.warning("%s still has requests after %g s; it is ended", self._name(member), self._settings.drain_timeout_s)
            self._remove(member.address)
        if self._rolling.is_old(member):
            member.go_on(ScaledEvent.SPARED, self._now, "kept until the roll is over")
        else:
            self._stop(member, ScaledEvent.DRAINED, member.why)

    def _stop(self, member: ScaledServer, event: ScaledEvent, why: str) -> None:
        member.go_on(event, self._now, why)
        self._driver.stop(member.n, hard=False)

    def _note_ended(self, ended: Ended) -> None:
        """A server has ended."""
        member = self._members.pop(ended.n)
        if member.address in self._seen:
            self._remove(member.address)
        if member.state is ScaledState.STOPPING or (member.state is ScaledState.PARKED and not self._rolling.is_going_back):
            log.info("%s has ended: %s", self._name(member), ended.why)
            return
        in_words = {ScaledState.STARTING: "has not started",
                    ScaledState.SERVING: "has ended by itself"}.get(member.state, "has ended early")
        self._note_failure(member, f"{in_words}: {ended.why}", ended.last_lines)

    def _note_late(self, member: ScaledServer) -> None:
        """A server has not become ready in time."""
        reason = self._readiness.why_not(member.address) if member.address else "its address is not known"
        why = f"was not ready {self._settings.start_timeout_s:g} s after its start: {reason}"
        self._note_failure(member, why, self._driver.last_lines(member.n))
        self._stop(member, ScaledEvent.LATE, why)

    def _note_failure(self, member: ScaledServer | None, what: str, last_lines: str = "") -> None:
        """Note what has become of a server that is not well; without a server, that none could be started."""
        if member is None or self._rolling.is_new(member):
            self._rolling.fail(f"a new server {what}")
        follows = "the roll goes back" if self._rolling.is_going_back else self._backoff.fail(self._now)
        place = f"{self._name(member)}: it" if member else f"pool {self._pool}: a server"
        output = f"; its last output:\n{last_lines}" if last_lines else ""
        log.error("%s %s; %s%s", place, what, follows, output)
        self._fleet_pool.tell(EventKind.EXITED, member.address if member else "", f"{what}; {follows}")
        if self._backoff.is_given_up:
            self._fleet_pool.tell(EventKind.GIVEN_UP, "", follows)

    def _name(self, member: ScaledServer) -> str:
        return f"pool {self._pool}: server {member.address or member.n}"

    # -- how many -----------------------------------------------------------------------------------------------

    def _in(self, *states: ScaledState) -> list[ScaledServer]:
        return [member for member in self.servers if member.state in states]

    def _is_outgoing(self, member: ScaledServer) -> bool:
        return bool(member.worn or member.lost) or self._rolling.is_outgoing(member)

    def _is_warm(self, member: ScaledServer) -> bool:
        """Whether it can do the work of one that is drained."""
        seen = self._seen.get(member.address)
        return (member.state is ScaledState.SERVING and seen is not None and seen.is_usable and not seen.is_leaving
                and self._now - member.state_since >= self._settings.warm_s)

    def _may_become_warm(self, member: ScaledServer) -> bool:
        """Whether it is worth to wait for a server: it has not been unfit for requests for longer than a start may take."""
        age_s = self._now - member.state_since
        return not self._is_warm(member) and age_s < self._settings.start_timeout_s + self._settings.warm_s

    def _end_surplus(self, wanted: int) -> None:
        """Let servers end that are not needed. Outgoing ones go as far as others have come up in their place."""
        staying = [member for member in self._in(ScaledState.STARTING, ScaledState.SERVING) if not self._is_outgoing(member)]
        # Lost ones first: they do no work.
        outgoing = sorted((member for member in self._in(ScaledState.SERVING) if self._is_outgoing(member)),
                          key=lambda it: not it.lost)
        for member in self._in(ScaledState.STARTING):
            if self._is_outgoing(member):
                self._dismiss(member, "it is to be replaced")
        spare = sum(map(self._is_warm, staying)) + len(outgoing) - wanted
        for member in outgoing[:max(0, spare)]:
            self._dismiss(member, member.worn or member.lost or "it is replaced")
        # Those that do not serve yet first, then those with the highest numbers: so numbers, and addresses, stay few.
        staying.sort(key=lambda member: (member.state is ScaledState.SERVING, -member.n))
        for member in staying[:max(0, len(staying) - wanted)]:
            self._dismiss(member, f"{wanted} wanted")

    def _start_missing(self, wanted: int) -> None:
        """Have back those that were let go, and start others, until there are enough."""
        staying = sum(1 for member in self._in(ScaledState.STARTING, ScaledState.SERVING) if not self._is_outgoing(member))
        outgoing = sum(1 for member in self._in(ScaledState.SERVING) if self._is_outgoing(member))
        for member in self._in(ScaledState.DRAINING, ScaledState.PARKED):
            if staying < wanted and not self._is_outgoing(member):
                self._join(member, ScaledEvent.RECALLED, "it is needed again")
                staying += 1
        if self._rolling.is_going_back:
            return  # a new one would be one of those that it goes back from
        most = wanted + (self._rolling.surge if outgoing else 0)
        for _ in range(min(wanted - staying, most - staying - outgoing, _STARTS_A_TICK)):
            if not self._backoff.may_start(self._now, self.count(ScaledState.STARTING)) or not self._start():
                return

    def _note_check(self, member: ScaledServer) -> None:
        """Mark a server whose check has failed for too long. It stays until another one has come up in its place: what makes
        checks fail may be common to all servers, and then it is had back as soon as its check passes."""
        seen = self._seen.get(member.address)
        if seen is None or not seen.is_down:
            if member.lost:
                log.info("%s is not replaced: its check does not fail any more", self._name(member))
            member.down_since, member.lost = None, ""
            return
        if member.down_since is None:
            member.down_since = self._now
        if not member.lost and 0 < self._settings.replace_after_s <= self._now - member.down_since:
            member.lost = f"its check has failed for {self._settings.replace_after_s:g} s"
            log.warning("%s is to be replaced: %s", self._name(member), member.lost)

    def _notice_wear(self) -> None:
        """Mark one server that is to be replaced, unless that goes on with another."""
        serving = self._in(ScaledState.SERVING)
        if any(map(self._is_outgoing, serving)):
            return
        for member in serving:
            if worn := self._wear(member):
                member.worn = worn
                log.info("%s is to be replaced: %s", self._name(member), worn)
                return

    def _wear(self, member: ScaledServer) -> str:
        """The limit that a server has come to; empty: none."""
        settings = self._settings
        seen = self._seen.get(member.address)
        if 0 < settings.max_age_s <= self._now - member.since:
            return f"it is older than {settings.max_age_s:g} s"
        if seen is not None and 0 < settings.max_requests <= seen.requests:
            return f"it has had {seen.requests} requests"
        memory = self._driver.memory(member.n) if member is self._looked_at else None
        if memory is not None and memory > settings.max_memory_bytes:
            return f"it uses {memory >> 20} MiB of memory"
        return ""

    def _next_to_look_at(self) -> ScaledServer | None:
        """The server whose memory is looked at in this tick: one a second, in turns."""
        serving = self._in(ScaledState.SERVING)
        if not self._settings.max_memory_bytes or not serving or self._now < self._look_at:
            return None
        self._look_at = self._now + _MEMORY_LOOK_S
        found = next((member for member in serving if member.n > self._last_looked_at), serving[0])
        self._last_looked_at = found.n
        return found

    def _judge_roll(self, wanted: int) -> None:
        """See whether the roll has failed, or is over."""
        serving = self._in(ScaledState.STARTING, ScaledState.SERVING)
        patience_s = 2 * self._settings.start_timeout_s + self._settings.warm_s
        for member in serving:
            if self._rolling.is_new(member) and self._now - member.since > patience_s and not self._is_warm(member):
                self._rolling.fail(f"a new server is not fit for requests {patience_s:g} s after its start")
        staying = [member for member in serving if not self._rolling.is_outgoing(member)]
        outgoing = len(serving) - len(staying)
        warm = sum(map(self._is_warm, staying))
        if self._rolling.is_going_back:
            # Of new ones, as many stay as are needed beside the old ones that are fit for requests.
            kept = any(not self._rolling.is_outgoing(member) for member in self._in(ScaledState.DRAINING, ScaledState.PARKED))
            is_complete = not outgoing or warm + outgoing <= wanted and (not kept or len(staying) >= wanted)
            is_over = is_complete and not any(map(self._may_become_warm, staying))
        else:
            is_over = not outgoing and warm >= wanted
        if is_over:
            self._rolling.end(count(len(staying), "new server"))
            for member in self._in(ScaledState.PARKED):
                self._dismiss(member, "the roll is over")

    def _remove_strangers(self) -> None:
        """Remove servers from the pool whose processes ended while there was no controller."""
        known = {member.address for member in self.servers}
        for address in list(self._seen):
            if address not in known:
                self._remove(address)

    def _remove(self, address: str) -> None:
        self._fleet_pool.remove(address)
        del self._seen[address]
