"""How many sessions a drained server still has, from the memory of a running instance.

Sessions by cookie and by route are stored nowhere: only their requests show them. So none counts as left once no request of one
has come for as long as its visitor may need, which is `sticky.idle` where there is one, else a minute.
"""
from __future__ import annotations

from prefork_lb.config.sticky import DEFAULT_LEARNED_IDLE_S, StickyConfig
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import SESSIONS_WINDOW_MS, Admin, States, now_ms


class SessionsLeft:
    """Of the server of a pool that has `slot`."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, pool: str, address: str, slot: int) -> None:
        self._segment, self._ledger, self._states = segment, ledger, states
        self._pool, self._address, self._slot = pool, address, slot

    def in_words(self, busy_ms: int = 0) -> str:
        """The sessions that are left; empty: none is, or the pool does not keep them.

        `busy_ms` is when a request was last in flight, if that is known: its visitor may come again.
        """
        sticky = self._sticky()
        if sticky is None:
            return ""
        if self._are_stored(sticky):
            since_ms = now_ms() - int((sticky.idle or DEFAULT_LEARNED_IDLE_S) * 1000)
            server = SessionKeys(self._segment.secret, self._pool).server(self._address)
            count = SessionTable(self._segment, self._ledger).count(server, since_ms)
            return f"{count} session{'s' if count != 1 else ''}" if count else ""
        states, slot = self._states, self._slot
        quiet_ms = now_ms() - max(states.drained[slot], states.session_at[slot], busy_ms)
        if quiet_ms >= _quiet_s(sticky) * 1000:
            return ""
        count = states.session_requests_lately(slot)
        if count:
            return f"{count} request{'s' if count != 1 else ''} of sessions in the last minute"
        return f"sessions that may come back (no request of one for {quiet_ms // 1000} s, of {_quiet_s(sticky):g} s)"

    @property
    def quiet_s(self) -> float:
        """Seconds without a request of a session after which none counts as left; 0: they are known, or not kept."""
        sticky = self._sticky()
        return 0 if sticky is None or self._are_stored(sticky) else _quiet_s(sticky)

    def _sticky(self) -> StickyConfig | None:
        """How the pool keeps the sessions of this server; None: it does not, or not any more."""
        if self._states.admin[self._slot] != Admin.DRAIN:
            return None
        config = configuration_of(self._segment)
        sticky = config.pools[self._pool].sticky if config is not None and self._pool in config.pools else None
        # A drained server gives no new cookies, so `max_age` later the last one has ended.
        if sticky is None or sticky.mode not in ("cookie", "route", "learn") or any(
                0 < seconds * 1000 <= now_ms() - self._states.drained[self._slot]
                for seconds in (sticky.drain_timeout, sticky.max_age)):
            return None
        return sticky

    def _are_stored(self, sticky: StickyConfig) -> bool:
        return sticky.mode == "learn" and bool(self._segment.layout.sessions)


def _quiet_s(sticky: StickyConfig) -> float:
    return sticky.idle or SESSIONS_WINDOW_MS / 1000
