"""Selects the fields that travel on, and writes fields as lines."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prefork_lb.errors import ProxyError
from prefork_lb.wire import compiled, grammar
from prefork_lb.wire.fields import nominated
from prefork_lb.wire.head import CONNECTION, Fields, FieldSection, Index, Section

# Clients choose the names, so the memory for known names is bounded. Python checks longer names again each time.
_LONGEST_NAME: Final = 64
_MOST_BYTES: Final = 512 * 1024
_ENTRY_BYTES: Final = 100  # of an object and its place in a dict, without the name's own bytes


class Lines:
    """Writes the lines of the fields that travel on. Names repeat, so `travels` is called once for each name."""

    def __init__(self, travels: Callable[[bytes], bool], malformed: type[ProxyError]) -> None:
        """`travels` gets a name in lower case and tells whether the field travels on."""
        self._travels = travels
        self._malformed = malformed
        self._known: dict[bytes, bool] = {}  # by the name as it was written
        self._held = 0  # bytes

    def join(self, section: Section, before: bytes = b"", behind: bytes = b"") -> bytes:
        """The lines of the fields of a head that travel on, between two pieces; those named in its Connection stop here (RFC 9110
        7.6.1).

        Raises `malformed` when any field, also one that stops here, holds a byte that no field may hold.
        """
        stop = nominated(section) if section.notable & CONNECTION else None
        if not stop and not isinstance(section, FieldSection):
            joined = section.join(self._known, before, behind)
            if joined is None:
                self._learn(section.fields)
                joined = section.join(self._known, before, behind)
            if joined is not None:
                return joined
        return b"%b%b%b" % (before, self.join_fields(section.fields, stop or frozenset()), behind)

    def join_fields(self, fields: Fields, stop: frozenset[bytes] = frozenset()) -> bytes:
        """The same for fields that need not have come from a head that was parsed here; those whose names are in `stop` stop."""
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
        # Each field is checked alone: in the joined block, a value that contains a whole line, or a name with a colon, would look
        # valid.
        check_fields(fields, self._malformed)
        return field_lines([field for field in fields if self._travels(field[0].lower())])

    def pick(self, fields: Fields, index: Index) -> Fields:
        """The fields that travel on, as pairs. Bytes are not checked: the fields were parsed here."""
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
    """Fields as lines (RFC 9112 5). The caller has checked them or made them."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name, value in fields])


def check_fields(fields: Fields, malformed: type[ProxyError]) -> None:
    """Raise `malformed` unless all names and values match the grammar."""
    for name, value in fields:
        if not (grammar.token.fullmatch(name) and grammar.value.fullmatch(value)):
            raise malformed(f"a byte that no field may hold, in the field {name[:40]!r}")
