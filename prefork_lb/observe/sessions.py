"""The sessions that servers have, as far as they can be counted, and what is left of them on a drained server.

Learned sessions are in a table. Sessions by cookie and by route are stored nowhere: only their requests show them, which are
counted on drained servers. So none counts as left once no request of one has come for as long as its visitor may need, which is
`sticky.idle` where there is one, else a minute.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefork_lb.clock import Clock, monotonic
from prefork_lb.config.model import Config
from prefork_lb.config.sticky import DEFAULT_LEARNED_IDLE_S, StickyConfig
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, count_sessions
from prefork_lb.shared.states import SESSIONS_WINDOW_MS, Admin, States, now_ms
from prefork_lb.words import count

_FRESH_S = 0.5
_SHARE = 20  # a count of the table that took a second is good for 20


@dataclass(frozen=True, slots=True)
class ServerSessions:
    """Of one server."""

    count: int | None = None  # stored ones, or requests of others in the last minute; None: it is not known
    left: str | None = None  # what a drained server still has, in words; None: it is not drained, or keeps none
    quiet_s: float = 0.0  # so long no request of a session must have come before none is left; 0: they are counted, or not kept


class SessionCounter:
    """Looks at the sessions of an instance; needs no lock."""

    def __init__(self, segment: Segment, states: States, clock: Clock = monotonic) -> None:
        self._segment, self._states, self._clock = segment, states, clock
        self._stored: dict[float, tuple[float, Counter[int]]] = {}  # by `idle`: until when it is good, numbers by server

    def of(self, config: Config | None, pool: str, address: str, slot: int, busy_ms: int = 0) -> ServerSessions:
        """Those of the server in this slot. `busy_ms` is when a request was last in flight, if that is known: its visitor may
        come again."""
        sticky = config.pools[pool].sticky if config is not None and pool in config.pools else None
        if sticky is None or sticky.mode not in ("cookie", "route", "learn"):
            return ServerSessions()
        keeps = self._keeps_drained(sticky, slot)
        if sticky.mode == "learn":
            stored = self._count_stored(sticky, pool, address)
            return ServerSessions(stored, (count(stored, "session") if stored else "") if keeps else None)
        if not keeps:
            return ServerSessions()
        states, quiet_s = self._states, sticky.idle or SESSIONS_WINDOW_MS / 1000
        quiet_ms = now_ms() - max(states.drained[slot], states.session_at[slot], busy_ms)
        lately = states.session_requests_lately(slot)
        if quiet_ms >= quiet_s * 1000:
            left = ""
        elif lately:
            left = f"{count(lately, 'request')} of sessions in the last minute"
        else:
            left = f"sessions that may come back (no request of one for {quiet_ms // 1000} s, of {quiet_s:g} s)"
        return ServerSessions(lately, left, quiet_s)

    def _keeps_drained(self, sticky: StickyConfig, slot: int) -> bool:
        """Whether the server is drained and still keeps its sessions."""
        # A drained server gives no new cookies, so `max_age` later the last one has ended.
        return bool(self._states.admin[slot] == Admin.DRAIN) and not any(
            0 < seconds * 1000 <= now_ms() - self._states.drained[slot] for seconds in (sticky.drain_timeout, sticky.max_age))

    def _count_stored(self, sticky: StickyConfig, pool: str, address: str) -> int:
        idle_s, begun = sticky.idle or DEFAULT_LEARNED_IDLE_S, self._clock()
        good_until, counts = self._stored.get(idle_s, (0.0, Counter()))
        if begun >= good_until:
            counts = count_sessions(self._segment, now_ms() - int(idle_s * 1000))
            ended = self._clock()
            self._stored[idle_s] = ended + max(_FRESH_S, _SHARE * (ended - begun)), counts
        return counts[SessionKeys(self._segment.secret, pool).server(address)]
