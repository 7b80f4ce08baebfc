"""The fields that travel on, as pairs and as lines; how a line is written."""
from __future__ import annotations

from collections.abc import Callable, Iterable

from prefork_lb.errors import ProxyError
from prefork_lb.wire import compiled, grammar
from prefork_lb.wire.fields import nominated
from prefork_lb.wire.head import Fields, Index

# Clients choose the names. Longer ones are looked at anew each time, by the Python; what is known has a bound in bytes.
_LONGEST_NAME = 64
_MOST_BYTES = 512 * 1024
_ENTRY_BYTES = 100  # of an object and its place in a dict, without the name's own bytes


class Lines:
    """Makes the lines of those fields that `travels` lets pass; names come again and again, so it is asked once for each."""

    def __init__(self, travels: Callable[[bytes], bool], malformed: type[ProxyError]) -> None:
        """`travels` is asked with a name in lower case."""
        self._travels = travels
        self._malformed = malformed
        self._known: dict[bytes, bool] = {}  # by the name as it was written
        self._held = 0  # bytes

    def join(self, fields: Fields, index: Index) -> bytes:
        """The lines of those that travel on; `index` is that of all fields. Connection may name more that stop (RFC 9110 7.6.1).

        Raises `malformed` for a byte that no field may hold, in any of them: whatever let it in, it goes no further.
        """
        stop = nominated(index)
        if stop:
            check_fields(fields, self._malformed)
            fields = [field for field in fields if field[0].lower() not in stop]
        heads = compiled.heads
        if heads is not None:
            joined = heads.join_fields(fields, self._known)
            if joined is None:
                self._learn(fields)
                joined = heads.join_fields(fields, self._known)
            if joined is not None:
                return joined
        # One by one, those that stop here too: a value that holds a whole line, or a name that holds a colon, would look well
        # in the block of all.
        check_fields(fields, self._malformed)
        return field_lines([field for field in fields if self._travels(field[0].lower())])

    def pick(self, fields: Fields, index: Index) -> Fields:
        """The same as pairs, not looked at: for fields that were parsed here."""
        stop = nominated(index)
        return [field for field in fields if (name := field[0].lower()) not in stop and self._travels(name)]

    def _learn(self, fields: Fields) -> None:
        for name, _ in fields:
            if name in self._known or len(name) > _LONGEST_NAME:
                continue
            if self._held >= _MOST_BYTES:
                self._known = {}
                self._held = 0
            self._known[name] = self._travels(name.lower())
            self._held += len(name) + _ENTRY_BYTES


def field_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as lines (RFC 9112 5). They are checked already, or our own."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def check_fields(fields: Fields, malformed: type[ProxyError]) -> None:
    """See that names and values hold nothing but what they may. Raises `malformed`."""
    for name, value in fields:
        if not (grammar.token.fullmatch(name) and grammar.value.fullmatch(value)):
            raise malformed(f"a byte that no field may hold, in the field {name[:40]!r}")
