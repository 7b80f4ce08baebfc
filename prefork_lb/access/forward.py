"""Requests that another server decides on (`forward_auth`), as nginx's auth_request and Traefik's ForwardAuth do it.

That server gets a GET with the fields of the request and, in X-Forwarded-*, what was asked for and by whom. It may go by any of
them, so an answer is remembered for all of them together, by a keyed hash. Only those that let a request pass are remembered.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from prefork_lb.access.remembered import Remembered
from prefork_lb.clock import Clock
from prefork_lb.errors import OwnAnswer, Undecided
from prefork_lb.filters.http import HTTPAnswer, HTTPClient, NoAnswer
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.template import Facts
from prefork_lb.wire.fields import HOP_BY_HOP, cgi_name, nominated
from prefork_lb.wire.forwarded import is_told_by_proxies
from prefork_lb.wire.head import list_members

_MOST_REMEMBERED = 4096
# Answers that are for the client: who it is, that it may not, or where to sign in.
_FOR_CLIENTS = (401, 403, 301, 302, 303, 307, 308)
# Of the request: what belongs to its connection and body, and what would make of the answer a part or none (RFC 9110 13, 14).
_NOT_ASKED = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"via", b"max-forwards", b"trailer", b"range", b"if-match", b"if-none-match",
    b"if-modified-since", b"if-unmodified-since", b"if-range"}
# Of the answer: what this proxy writes anew.
_NOT_ANSWERED = HOP_BY_HOP | {b"content-length", b"date", b"server", b"via"}


class ForwardAuth:
    """Of one route; a guard."""

    def __init__(self, client: HTTPClient, url: str, fields: Sequence[str], timeout_s: float, remembered_s: float,
                 clock: Clock) -> None:
        """`fields` of the answer go to the server. An answer is remembered for `remembered_s`; 0: not at all."""
        self._client, self._url, self._timeout_s, self._remembered_s = client, url, timeout_s, remembered_s
        self._fields = fields
        self._withheld = _NOT_ASKED | {cgi_name(name.encode()) for name in fields}
        self._passed = Remembered[bytes, Passed](_MOST_REMEMBERED, clock)
        self._hashing = hashlib.blake2b(key=os.urandom(32), digest_size=16)

    def __call__(self, facts: Facts) -> Passed:
        """Let a request pass that the other server lets pass. Raises OwnAnswer with what it says to the client, and Undecided."""
        asked = self._asked(facts)
        if not self._remembered_s:
            return self._ask(asked)
        hashing = self._hashing.copy()
        hashing.update("\n".join([f"{name}:{value}" for name, value in asked.items()]).encode("latin-1"))
        key = hashing.digest()
        passed = self._passed.get(key)
        if passed is None:
            passed = self._ask(asked)
            self._passed.put(key, passed, self._remembered_s)
        return passed

    def _asked(self, facts: Facts) -> dict[str, str]:
        """The fields of the request to the other server."""
        head, found = facts.head, dict[bytes, list[bytes]]()
        stop = nominated(head.index)
        for name, values in head.index.items():
            plain = cgi_name(name)
            if plain in self._withheld or name in stop or plain.startswith(b"x-forwarded-") or is_told_by_proxies(plain):
                continue
            found[name] = list(values)
        asked = {name.decode("latin-1"): (b"; " if name == b"cookie" else b", ").join(values).decode("latin-1")
                 for name, values in found.items()}
        asked["X-Forwarded-Method"] = head.method.decode("latin-1")
        asked["X-Forwarded-Proto"] = facts.scheme.decode("latin-1")
        asked["X-Forwarded-Host"] = next(iter(head.index.get(b"host", ())), facts.host.encode()).decode("latin-1")
        asked["X-Forwarded-Uri"] = facts.target.decode("latin-1")
        if facts.client:
            asked["X-Forwarded-For"] = facts.client
        return asked

    def _ask(self, asked: dict[str, str]) -> Passed:
        try:
            answer = self._client.get(self._url, asked, self._timeout_s)
        except NoAnswer as exc:
            raise Undecided(f"forward_auth: {exc}") from exc
        if 200 <= answer.status < 300:
            return Passed(fields=[(name.encode(), value.encode("latin-1"))
                                  for name in self._fields for value in answer.fields.all(name)])
        if answer.status in _FOR_CLIENTS:
            raise OwnAnswer(answer.status, _for_client(answer), answer.body)
        raise Undecided(f"forward_auth: {self._url} answers {answer.status}, which is neither a pass nor for a client")


def _for_client(answer: HTTPAnswer) -> list[tuple[bytes, bytes]]:
    stop = list_members([value.encode("latin-1") for value in answer.fields.all("Connection")])
    return [pair for pair in answer.fields.pairs if pair[0].lower() not in _NOT_ANSWERED.union(stop)]
