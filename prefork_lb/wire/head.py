"""Heads as values: the start line and the fields of a request or a response."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from prefork_lb.native.loader import NativeSection
from prefork_lb.wire import compiled

if TYPE_CHECKING:  # it needs the heads
    from prefork_lb.wire.framing import Framing

Fields = list[tuple[bytes, bytes]]
"""Names as they came, and values without surrounding blanks, in order."""

Index = Mapping[bytes, Sequence[bytes]]
"""The values under each lower-case name, in order."""


# What the way of a request asks for in every head. A section notes which of them it has, so that an answer is one comparison.
# native/section.h has the same.
NOTABLE: Final = (b"content-length", b"transfer-encoding", b"connection", b"date", b"via", b"expect", b"upgrade", b"max-forwards")
CONTENT_LENGTH: Final = 1 << 0
TRANSFER_ENCODING: Final = 1 << 1
CONNECTION: Final = 1 << 2
DATE: Final = 1 << 3
VIA: Final = 1 << 4
EXPECT: Final = 1 << 5
UPGRADE: Final = 1 << 6
MAX_FORWARDS: Final = 1 << 7
FRAMES_BODY: Final = CONTENT_LENGTH | TRANSFER_ENCODING
_BITS: Final = {name: 1 << place for place, name in enumerate(NOTABLE)}

_KEEP_ALIVE: Final = [b"keep-alive"]
_MOST_DIGITS: Final = 18  # as grammar.length has it



class FieldSection(dict[bytes, list[bytes]]):
    """What `native.loader.NativeSection` is, in Python."""

    __slots__ = ("fields", "kept", "length", "notable")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.fields: Fields = list(fields)
        for name, value in self.fields:
            self.setdefault(name.lower(), []).append(value)
        self.notable = sum([bit for name, bit in _BITS.items() if name in self])  # which of NOTABLE it has
        self.length = _one_length(self.get(b"content-length", ()))  # the one Content-Length; -1: none, several, or no number
        self.kept: object = None  # as of RequestHead: what `proxy` computed from the fields alone

    def without(self, names: frozenset[bytes], either_spelling: bool) -> FieldSection:
        """The section without the fields of these names (in lower case); itself, when it has none of them. `either_spelling`: an
        underscore in a field's name counts as a hyphen."""
        fields = [field for field in self.fields
                  if (field[0].lower().replace(b"_", b"-") if either_spelling else field[0].lower()) not in names]
        return self if len(fields) == len(self.fields) else FieldSection(fields)


def _one_length(values: Sequence[bytes]) -> int:
    # A regular expression costs more than all of this, and bytes.isdigit knows ASCII only.
    return int(values[0]) if len(values) == 1 and values[0].isdigit() and len(values[0]) <= _MOST_DIGITS else -1


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Sizes of a head. Defaults: nginx's 32 KiB in all (4 buffers of 8 KiB) and 8 KiB a line; Apache's 100 fields."""

    head_bytes: int = 32 * 1024
    line_bytes: int = 8 * 1024
    fields: int = 100


Section = FieldSection | NativeSection
"""The fields of a head that no longer changes: an index, the fields in order, and more."""


class _Head:
    """What heads of both kinds have."""

    __slots__ = ()
    _told: ClassVar[tuple[str, ...]]  # what tells a head from others of its kind
    section: Section

    @property
    def fields(self) -> Fields:
        return self.section.fields

    def _parts(self) -> list[object]:
        return [getattr(self, name) for name in self._told]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Head) and self._parts() == other._parts()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._parts()))})"


class RequestHead(_Head):
    """A request's head.

    The same head often comes again, so `proxy` stores what it computed from a head in `kept`. Only `proxy` uses `kept` (a test of
    the layers checks that).
    """

    __slots__ = ("index", "is_parsed", "is_persistent", "kept", "method", "minor", "section", "target")
    _told = ("method", "target", "minor", "fields")

    def __init__(self, method: bytes, target: bytes, minor: int, fields: Fields | Section, is_parsed: bool = False) -> None:
        """`minor` is that of the version: 0 or 1. `is_parsed` tells that `parse_request` has checked the request line."""
        self.method = method
        self.target = target
        self.minor = minor
        self.section = section = FieldSection(fields) if isinstance(fields, list) else fields
        self.index: Index = section
        self.kept: object = None
        self.is_parsed = is_parsed
        self.is_persistent = is_persistent(section, minor)  # the client wants to use its connection again


class ResponseHead(_Head):
    """A response's head; `kept` as of RequestHead."""

    __slots__ = ("framing", "index", "is_persistent", "kept", "minor", "reason", "section", "status")
    _told = ("status", "reason", "minor", "fields")

    def __init__(self, status: int, reason: bytes, minor: int, fields: Fields | Section) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.section = section = FieldSection(fields) if isinstance(fields, list) else fields
        self.index: Index = section
        self.kept: object = None
        # The framing of its body when the request's method was not HEAD. `wire.framing` computes it on demand.
        self.framing: Framing | None = None
        self.is_persistent = is_persistent(section, minor)  # the connection can be used again (RFC 9112 9.3)

    def with_section(self, section: Section) -> ResponseHead:
        """This head with other fields, which say the same of the connection and of the body's framing."""
        other = ResponseHead.__new__(ResponseHead)
        other.status, other.reason, other.minor = self.status, self.reason, self.minor
        other.section = other.index = section
        other.kept, other.framing, other.is_persistent = None, self.framing, self.is_persistent
        return other


if compiled.heads is not None:
    compiled.heads.use(RequestHead, ResponseHead)


def is_persistent(section: Section, minor: int) -> bool:
    """Whether the connection goes on after the message, as its head says (RFC 9112 9.3).

    To be asked once for each head: Connection may fill the whole head and have thousands of members.
    """
    if not section.notable & CONNECTION:
        return minor == 1
    options = section[b"connection"]
    if options == _KEEP_ALIVE:  # nearly always
        return True
    members = list_members(options)
    return b"close" not in members and (minor == 1 or b"keep-alive" in members)


def list_members(values: Sequence[bytes]) -> list[bytes]:
    """The members of a comma-separated list field in lower case, without empty ones and repetitions (RFC 9110 5.6.1)."""
    # Repetitions are removed first: a client may send thousands, and the work on each member costs ten times the split.
    found = dict.fromkeys(b",".join(values).lower().split(b","))
    members = dict.fromkeys([member.strip(b" \t") for member in found])
    return [member for member in members if member]
