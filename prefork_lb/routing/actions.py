"""What a route does with a request besides choosing its pool: who may come, answers of its own, changes on the way."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prefork_lb.errors import ContentTooLarge, Forbidden, NotFound, OwnAnswer
from prefork_lb.routing.guards import Guard, Guarded
from prefork_lb.routing.template import Facts, Template
from prefork_lb.wire.fields import cgi_name
from prefork_lb.wire.forwarded import is_told_by_proxies

_MOST_FILE_BYTES = 1 << 20
# A place that touches the host, as in `https://example.org{rest}`, could go on with `.evil.net`. {path} begins with a slash, and
# {host} was asked for by the client itself.
_CLIENT_CHOOSES_HOST = re.compile(r"(?:https?|\{scheme\})://(?:[^/{]|\{host\})*\{(?!host\}|path\})")

Answer = Callable[[Facts], OwnAnswer]
"""Makes the answer of a route that needs no server."""


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """Changes of a head's fields. A name in `sets` or `removed` loses the fields it had."""

    removed: frozenset[bytes] = frozenset()  # in lower case, those of `sets` too; of requests with hyphens for underscores
    written: Sequence[tuple[bytes, Template]] = ()  # of `sets` and `adds`
    lines: Template = Template("")  # the same as lines
    own_lines: re.Pattern[bytes] | None = None  # of requests: finds the lines of `removed` that this proxy itself writes

    def values(self, facts: Facts) -> list[tuple[bytes, bytes]]:
        """The fields to write for a request."""
        return [(name, template(facts)) for name, template in self.written]


def field_changes(sets: Mapping[str, str], adds: Mapping[str, str], removes: Sequence[str]) -> FieldChanges:
    """The changes as values. Raises ValueError for a template that is none."""
    removed = frozenset(name.lower().encode() for name in (*sets, *removes))
    written = [*sets.items(), *adds.items()]
    return FieldChanges(removed, [(name.encode(), Template(text)) for name, text in written],
                        Template("".join(f"{name}: {text}\r\n" for name, text in written)))


NO_CHANGES = FieldChanges()

_OWN = frozenset((b"host", b"max-forwards"))  # written anew for the server, as is what tells it about the client


def of_requests(changes: FieldChanges, names: Sequence[str]) -> FieldChanges:
    """These changes for requests, which lose the fields of these names, too: in both spellings of `cgi_name`."""
    removed = frozenset(map(cgi_name, (*changes.removed, *(name.encode() for name in names))))
    if not removed:
        return changes
    own = sorted(name for name in removed if name in _OWN or is_told_by_proxies(name))
    lines = rb"^(?:%b):[^\r\n]*\r\n" % b"|".join(map(re.escape, own))
    return FieldChanges(removed, changes.written, changes.lines, re.compile(lines, re.IGNORECASE | re.MULTILINE) if own else None)


Take = Callable[[], None]
"""Counts a request. Raises TooManyRequests."""

Limiter = Callable[[Facts], Take | None]
"""Finds what counts the requests of a kind; None: they are not limited."""


@dataclass(frozen=True, slots=True)
class Actions:
    """Of one route."""

    may_come: Callable[[str], bool] | None = None  # by the client's address; None: everybody
    answer: Answer | None = None  # None: the route's pool answers
    path: Template | None = None  # of the target that a server gets; None: the request's
    request: FieldChanges = NO_CHANGES
    response: FieldChanges = NO_CHANGES
    body_limit: int = 0  # bytes; 0: none
    limit: Limiter | None = None  # of the rate; None: none
    guards: Sequence[Guard] = ()

    def apply(self, facts: Facts, target: bytes, body_bytes: int) -> Applied:
        """What becomes of a request with this target, which is counted against the limit of the rate.

        Raises Forbidden, TooManyRequests, ContentTooLarge, or OwnAnswer, the answer, when the request is not for a server.
        """
        if self.may_come is not None and not self.may_come(facts.client):
            raise Forbidden(f"the route is not for the client {facts.client or 'of a unix socket'}")
        take = self.limit(facts) if self.limit is not None else None
        if take is not None:
            take()
        if self.body_limit and body_bytes > self.body_limit:
            raise ContentTooLarge(f"a body of {body_bytes} bytes; the route allows {self.body_limit}")
        if self.answer is not None:
            Guarded(self.guards, facts).enter().leave()
            raise self.answer(facts)
        if self.path is not None:
            target = _one_slash(self.path(facts))
        return Applied(self, facts, target, take)


class Applied:
    """What the actions of a route make of one request, and of all with the same head from the same client."""

    __slots__ = ("actions", "facts", "take", "target")

    def __init__(self, actions: Actions, facts: Facts, target: bytes, take: Take | None) -> None:
        self.actions, self.facts = actions, facts
        self.target = target  # that a server gets
        self.take = take  # counts the next of these requests; None: they are not limited

    def guarded(self) -> Guarded | None:
        """What each of these requests has to pass; None: nothing."""
        return Guarded(self.actions.guards, self.facts) if self.actions.guards else None

    def of_response(self) -> tuple[frozenset[bytes], Sequence[tuple[bytes, bytes]]] | None:
        """The names, in lower case, whose fields a response loses, and the fields that it gets; None: no changes."""
        changes = self.actions.response
        return None if changes is NO_CHANGES else (changes.removed, changes.values(self.facts))


def redirecting(text: str, status: int) -> Answer:
    """An answer that sends the client elsewhere. Raises ValueError for a text with which the client could choose the host."""
    template = Template(text)
    if _CLIENT_CHOOSES_HOST.match(text):
        raise ValueError(f"{text!r}: the client could choose the host that it is sent to; expected a slash, or {{path}}, behind "
                         "the host")

    def answer(facts: Facts) -> OwnAnswer:
        location = _one_slash(template(facts))
        return OwnAnswer(status, [(b"Location", location), (b"Content-Type", b"text/plain; charset=utf-8")], location + b"\n")

    return answer


def responding(status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> Answer:
    """The same answer for every request."""
    return lambda facts: OwnAnswer(status, fields, body)


def responding_from(folder: str, fields: Sequence[tuple[bytes, bytes]]) -> Answer:
    """The file of a folder that the last segment of the path names, as it is at the moment; there are no folders below."""
    def answer(facts: Facts) -> OwnAnswer:
        name = facts.rest.partition(b"?")[0]
        if not name or b"/" in name or b"%" in name or name.startswith(b"."):
            raise NotFound(f"{name[:80]!r} is no name of a file in {folder}")
        try:
            descriptor = os.open(os.path.join(folder.encode(), name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                body = file.read(_MOST_FILE_BYTES + 1)
        except OSError as exc:
            raise NotFound(f"{folder}: {exc.strerror}: {name[:80]!r}") from None
        if len(body) > _MOST_FILE_BYTES:
            raise NotFound(f"{folder}: {name[:80]!r} is larger than {_MOST_FILE_BYTES} bytes")
        return OwnAnswer(200, fields, body)

    return answer


def _one_slash(location: bytes) -> bytes:
    """Browsers take two slashes, and a slash with a backslash, for the begin of a host."""
    if location[:1] == b"/" and location[1:2] in (b"/", b"\\"):
        return b"/" + location.lstrip(b"/\\")
    return location
