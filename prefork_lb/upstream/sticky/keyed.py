"""Sessions by the client's address or a header field: hashed to a server, with nothing stored.

A session's server is the first one for its key. When that cannot be used, the next one for the key takes it: the same in all
workers, and for as long as the first is out. Nothing tells old sessions from new ones, so a drained server loses all of them
at once.
"""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.keys import KeyOf
from prefork_lb.balance.policy import RequestInfo
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import NOTHING, Pairs, Session, SessionRules
from prefork_lb.wire.head import Index


class KeyedSticky:
    """The modes `source` and `header:NAME`."""

    cookie = b""

    def __init__(self, policy: KeyedPolicy, key_of: KeyOf, rules: SessionRules) -> None:
        """`policy` tells the order of servers for a key."""
        self.rules = rules
        self.keyed = policy
        self._key_of = key_of
        self._none = Session(None)

    def read(self, request: RequestInfo, is_https: bool) -> object:
        return self._key_of(request)

    def find(self, told: object) -> Session:
        assert isinstance(told, bytes)
        if not told:
            return self._none
        first = next(self.keyed.order(told), None)
        assert isinstance(first, Server)  # a pool has a server that is no backup
        return Session(first, told)

    def replacement(self, session: Session, candidates: Sequence[Server]) -> Server | None:
        assert isinstance(session.told, bytes)
        order = self.keyed.backup_order(session.told) if candidates[0].backup else self.keyed.order(session.told)
        found = next((server for server in order if server in candidates), None)
        return found if isinstance(found, Server) else None

    def settle(self, session: Session, server: Server, answer: Index) -> Pairs:
        return NOTHING
