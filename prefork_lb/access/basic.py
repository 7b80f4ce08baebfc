"""Users with passwords: HTTP's Basic scheme (RFC 7617).

Facts of the world and what they force on us:

- To check a password takes a tenth of a second of a processor, on purpose. So it is done beside the requests (`Runtime.compute`),
  a few at a time; while many wait, further ones are refused. Whoever guesses passwords should meet the limit of a rate before.
- A client sends the password with every request. So a pair that was right is remembered for a while: by a keyed hash, whose key
  only this process has, never by itself. Pairs that were wrong are not remembered: a flood of them would drive out the others.
- A browser sends a handful of requests at once. Those that wait for the same check look again before they compute.
- The time of an answer must not tell whether there is a user of this name. So for an unknown one the hash of another is computed.
"""
from __future__ import annotations

import binascii
import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping

from prefork_lb.access.remembered import Remembered
from prefork_lb.clock import Clock
from prefork_lb.errors import ChecksBusy, Unauthorized
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.template import Facts
from prefork_lb.upstream.runtime import Compute
from prefork_lb.wire import grammar

REMEMBERED_S = 300.0
_MOST_REMEMBERED = 4096
_MOST_WAITING = 32  # a few seconds of work
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BCRYPT_BYTES = 72  # of a password; bcrypt's format ends there, and its library refuses longer ones

Verify = Callable[[bytes, bytes], bool]
"""Whether a password, the second value, has this hash. Computes for long."""


class BasicAuth:
    """Of one route; a guard."""

    def __init__(self, users: Mapping[bytes, bytes], realm: str, field: str, compute: Compute, clock: Clock,
                 verify: Verify) -> None:
        """`users` have a hash each; there is one at least. `field` tells the server the user's name; empty: it is not told."""
        self._users, self._field, self._compute, self._verify = users, field.encode(), compute, verify
        self._any_hash = next(iter(users.values()))
        self._challenge = [(b"WWW-Authenticate", b'Basic realm="%b", charset="UTF-8"' % realm.encode())]
        self._right = Remembered[bytes, None](_MOST_REMEMBERED, clock)
        self._hashing = hashlib.blake2b(key=os.urandom(32), digest_size=16)
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    def __call__(self, facts: Facts) -> Passed:
        """Let a user pass whose password is right. Raises Unauthorized, ChecksBusy."""
        values = facts.head.index.get(b"authorization", ())
        pair = credentials(values[0]) if len(values) == 1 else None
        if pair is None:
            raise Unauthorized("the route asks for a user and a password", self._challenge)
        user, password = pair
        hashing = self._hashing.copy()
        hashing.update(b"%b\0%b" % (user, password))
        digest = hashing.digest()
        if digest not in self._right and not self._check(digest, user, password):
            raise Unauthorized(f"the password of {user[:80]!r} is wrong, or there is no such user", self._challenge)
        return Passed(fields=((self._field, user),) if self._field else (), user=user)

    def _check(self, digest: bytes, user: bytes, password: bytes) -> bool:
        if not self._waiting.acquire(blocking=False):
            raise ChecksBusy(f"{_MOST_WAITING} passwords wait to be checked")
        try:
            return self._compute(lambda: self._is_right(digest, user, password))
        finally:
            self._waiting.release()

    def _is_right(self, digest: bytes, user: bytes, password: bytes) -> bool:
        """In a thread of its own."""
        if digest in self._right:
            return True
        known = user in self._users
        fits = self._verify(self._users.get(user, self._any_hash), password)
        if known and fits:
            self._right.put(digest, None, REMEMBERED_S)
        return known and fits


def credentials(value: bytes) -> tuple[bytes, bytes] | None:
    """User and password of an Authorization field; None: it has none."""
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = binascii.a2b_base64(token.strip(b" "), strict_mode=True)
    except binascii.Error:
        return None
    user, colon, password = text.partition(b":")
    # RFC 7617 2: neither has control characters. The name goes into logs and fields.
    return (user, password) if colon and grammar.value.fullmatch(user) and not _CONTROL.search(password) else None


def verify(hashed: bytes, password: bytes) -> bool:
    """A `Verify` by bcrypt and argon2. Both libraries let other threads run meanwhile, and compare in constant time."""
    if hashed.startswith(b"$argon2"):
        from argon2 import PasswordHasher  # only who uses passwords needs the packages
        from argon2.exceptions import VerificationError
        try:
            return PasswordHasher().verify(hashed, password)
        except VerificationError:
            return False
    import bcrypt
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)
    except ValueError:  # bits of the hash that its form leaves open
        return False
