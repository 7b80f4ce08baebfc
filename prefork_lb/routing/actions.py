"""What a route does with a request besides choosing its pool: who may come, answers of its own, changes on the way."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prefork_lb.errors import ContentTooLarge, Forbidden, NotFound, OwnAnswer
from prefork_lb.routing.template import Facts, Template

_MOST_FILE_BYTES = 1 << 20
# A place that touches the host, as in `https://example.org{rest}`, could go on with `.evil.net`. {path} begins with a slash, and
# {host} was asked for by the client itself.
_CLIENT_CHOOSES_HOST = re.compile(r"(?:https?|\{scheme\})://(?:[^/{]|\{host\})*\{(?!host\}|path\})")

Answer = Callable[[Facts], OwnAnswer]
"""Makes the answer of a route that needs no server."""


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """Changes of a head's fields. A name in `sets` or `removed` loses the fields it had."""

    removed: frozenset[bytes] = frozenset()  # in lower case, those of `sets` too
    written: Sequence[tuple[bytes, Template]] = ()  # of `sets` and `adds`

    def values(self, facts: Facts) -> list[tuple[bytes, bytes]]:
        """The fields to write for a request."""
        return [(name, template(facts)) for name, template in self.written]


def field_changes(sets: Mapping[str, str], adds: Mapping[str, str], removes: Sequence[str]) -> FieldChanges:
    """The changes as values. Raises ValueError for a template that is none."""
    removed = frozenset(name.lower().encode() for name in (*sets, *removes))
    return FieldChanges(removed, [(name.encode(), Template(text)) for name, text in (*sets.items(), *adds.items())])


NO_CHANGES = FieldChanges()


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
    request: FieldChanges = field(default_factory=FieldChanges)
    response: FieldChanges = field(default_factory=FieldChanges)
    body_limit: int = 0  # bytes; 0: none
    limit: Limiter | None = None  # of the rate; None: none

    def check(self, facts: Facts, body_bytes: int) -> Take | None:
        """Raise Forbidden, TooManyRequests, ContentTooLarge, or OwnAnswer, the answer, when the request is not for a server.

        Return what counts the next request with the same head; this one was counted.
        """
        if self.may_come is not None and not self.may_come(facts.client):
            raise Forbidden(f"the route is not for the client {facts.client or 'of a unix socket'}")
        take = self.limit(facts) if self.limit is not None else None
        if take is not None:
            take()
        if self.body_limit and body_bytes > self.body_limit:
            raise ContentTooLarge(f"a body of {body_bytes} bytes; the route allows {self.body_limit}")
        if self.answer is not None:
            raise self.answer(facts)
        return take

    def target(self, facts: Facts) -> bytes | None:
        """The target that a server gets; None: that of the request."""
        return None if self.path is None else _one_slash(self.path(facts))


def changed_block(block: bytes, changes: FieldChanges, facts: Facts) -> bytes:
    """A request's head with the changes of its fields. CGI cannot tell an underscore in a name from a hyphen (RFC 3875 4.1.18),
    so a name is removed in both spellings."""
    start, *lines = block[:-4].split(b"\r\n")
    if changes.removed:
        lines = [line for line in lines if line.partition(b":")[0].lower().replace(b"_", b"-") not in changes.removed]
    lines += [b"%b: %b" % entry for entry in changes.values(facts)]
    return b"\r\n".join([start, *lines, b"", b""])


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
