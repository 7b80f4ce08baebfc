"""Sessions by a cookie of the balancer: signed, so that a client can neither read nor choose a server.

The value is `ID.ISSUED.REFRESHED.SIGNATURE`. ID stands for a server: a keyed hash of the pool and the address. It tells a client
nothing, and hosts with the same secret agree on it. ISSUED is the time of the first issue, from which `max_age` counts; REFRESHED
is the time of this value, from which `idle` counts. Nothing in the value belongs to one visitor. So all new visitors that a
server gets within a second have the same value, and a new visitor costs no signature of his own. A value that does not verify
counts as none.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from itsdangerous import BadSignature, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode, bytes_to_int, int_to_bytes

from prefork_lb.balance.policy import RequestInfo
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import MOST_VALUES, NOTHING, Pairs, Session, SessionRules
from prefork_lb.wire.cookies import cookies
from prefork_lb.wire.head import Index
from prefork_lb.wire.memo import Memo

_ID_BYTES = 12
# A value has about 80 bytes. What is much longer is none of ours, and is not worth a hash.
_LONGEST = 200
_MEMO_BYTES = 1 << 20
_ENTRY_BYTES = 400
_SALT = b"prefork_lb session\0"


@dataclass(frozen=True, slots=True)
class CookieRules:
    """Of the cookie; see config.sticky.StickyConfig. Times are seconds, 0: no limit."""

    name: str = "prefork_lb"
    path: str = "/"
    domain: str = ""
    max_age_s: float = 0
    idle_s: float = 0
    http_only: bool = True
    same_site: str = "lax"
    secure: str = "auto"


class _Value(NamedTuple):
    """A good cookie."""

    server: Server
    issued: int  # seconds since the epoch, as the next
    refreshed: int
    is_current: bool  # made with the secret that signs now


class _Signer(TimestampSigner):
    """Takes the time from a clock that it is given; the first of its secrets signs."""

    def __init__(self, secrets: Sequence[bytes], salt: bytes, now: Callable[[], float]) -> None:
        # itsdangerous signs with the last of several keys.
        super().__init__(list(reversed(secrets)), salt, key_derivation="hmac", digest_method=hashlib.sha256)
        self._now = now

    def get_timestamp(self) -> int:
        return int(self._now())


class _Told:
    """What a head says: a good cookie or none. Its session is made with it, since the head comes again."""

    __slots__ = ("is_https", "session", "value")

    def __init__(self, value: _Value | None, is_https: bool) -> None:
        self.value = value
        self.is_https = is_https
        self.session = Session(value.server if value is not None else None, self)


class CookieSticky:
    """The mode `cookie`."""

    keyed = None

    def __init__(self, pool: str, servers: Sequence[Server], secrets: Sequence[bytes], rules: SessionRules, cookie: CookieRules,
                 now: Callable[[], float] = time.time) -> None:
        """The first of `secrets` signs, all verify. `now` is the time since the epoch, in seconds: other hosts have the same."""
        self.rules = rules
        self.cookie = cookie.name.encode()
        self._options = cookie
        self._now = now
        self._signer = _Signer(secrets, _SALT + pool.encode(), now)
        self._ids = {server: _server_id(secrets[0], pool, server) for server in servers}
        self._servers = {_server_id(secret, pool, server): server for secret in reversed(secrets) for server in servers}
        self._verified = Memo[bytes, _Value | None](self._verify, lambda value: _ENTRY_BYTES + len(value), _MEMO_BYTES, 1024)
        plain, secure = _attributes(cookie, False), _attributes(cookie, True)
        self._attributes = (secure if cookie.secure == "always" else plain, plain if cookie.secure == "never" else secure)
        # The fields for new sessions of this second, by server and whether they are Secure.
        self._fresh_second = 0
        self._fresh: dict[tuple[Server, bool], Pairs] = {}
        self._none = tuple(_Told(None, is_https) for is_https in (False, True))
        self._is_limited = bool(cookie.max_age_s or cookie.idle_s)

    def read(self, request: RequestInfo, is_https: bool) -> object:
        """The first good cookie of this name: browsers send several when pools of one host have cookies for several paths."""
        fields = request.index.get(b"cookie")
        if fields is not None:
            for value in islice(cookies(fields, self.cookie), MOST_VALUES):
                found = self._verified(value) if len(value) <= _LONGEST else None
                if found is not None:
                    return _Told(found, is_https)
        return self._none[is_https]

    def find(self, told: object) -> Session:
        assert isinstance(told, _Told)
        value = told.value
        if self._is_limited and value is not None:
            options, now = self._options, self._now()
            if 0 < options.max_age_s < now - value.issued or 0 < options.idle_s < now - value.refreshed:
                return self._none[told.is_https].session
        return told.session

    def replacement(self, session: Session, candidates: Sequence[Server]) -> Server | None:
        return None

    def settle(self, session: Session, server: Server, answer: Index) -> Pairs:
        told = session.told
        assert isinstance(told, _Told)
        value = told.value
        if server not in self._ids:  # it has left the pool while it answered
            return NOTHING
        if value is None:
            return self._for_new(server, told.is_https, int(self._now()))
        idle_s = self._options.idle_s
        if server is session.server and value.is_current and not idle_s:
            return NOTHING
        now = int(self._now())
        if server is session.server and value.is_current and now - value.refreshed < idle_s / 10:
            return NOTHING
        # The session goes on: its age counts from its first issue.
        return self._field(server, value.issued, now, told.is_https)

    def _for_new(self, server: Server, is_https: bool, now: int) -> Pairs:
        if now != self._fresh_second:
            # A new dict, not a cleared one: another thread may be about to add the last second's.
            self._fresh_second, self._fresh = now, {}
        fresh = self._fresh
        field = fresh.get((server, is_https))
        if field is None:
            field = fresh[server, is_https] = self._field(server, now, now, is_https)
        return field

    def _field(self, server: Server, issued: int, now: int, is_https: bool) -> Pairs:
        value = self._signer.sign(b"%b.%b" % (self._ids[server], base64_encode(int_to_bytes(issued))))
        options = self._options
        limits = [limit for limit in (options.max_age_s and issued + options.max_age_s - now, options.idle_s) if limit]
        lasts = b"; Max-Age=%d" % max(1, min(limits)) if limits else b""
        return ((b"Set-Cookie", b"%b=%b%b%b" % (self.cookie, value, self._attributes[is_https], lasts)),)

    def _verify(self, value: bytes) -> _Value | None:
        try:
            # Without its limit of age: what is found here is remembered, and age is looked at each time.
            told, refreshed = self._signer.unsign(value, return_timestamp=True)
        except BadSignature:
            return None
        server_id, _, issued = told.partition(b".")
        server = self._servers.get(server_id)
        if server is None:
            return None  # it is not in the pool any more
        # A server's ID is made with the secret that signs, so it tells whether that is the one of today.
        is_current = server_id == self._ids[server]
        return _Value(server, bytes_to_int(base64_decode(issued)), int(refreshed.timestamp()), is_current)


def _server_id(secret: bytes, pool: str, server: Server) -> bytes:
    digest = hmac.new(secret, b"server\0%b\0%b" % (pool.encode(), server.name.encode()), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:_ID_BYTES])


def _attributes(options: CookieRules, secure: bool) -> bytes:
    parts = [f"Path={options.path}"]
    if options.domain:
        parts.append(f"Domain={options.domain}")
    if options.http_only:
        parts.append("HttpOnly")
    if secure:
        parts.append("Secure")
    parts.append(f"SameSite={options.same_site.capitalize()}")
    return "".join(f"; {part}" for part in parts).encode()
