"""Heads: the start line and the fields of a request or a response, from bytes, strictly.

A head that does not match the grammar is refused, never repaired. A head that two readers understand differently can be used to
smuggle requests (RFC 9112 11.2).
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefork_lb.errors import BadRequest, BadResponse, HeadTooLarge, ProxyError, TargetTooLong, VersionNotSupported
from prefork_lb.native.loader import NativeSection
from prefork_lb.wire import compiled, grammar

if TYPE_CHECKING:  # it needs the heads
    from prefork_lb.wire.framing import Framing

Fields = list[tuple[bytes, bytes]]
"""Names as they came, and values without surrounding blanks, in order."""

Index = Mapping[bytes, Sequence[bytes]]
"""The values under each lower-case name, in order."""


# What the way of a request asks for in every head. A section notes which of them it has, so that an answer is one comparison.
# native/section.h has the same.
NOTABLE = (b"content-length", b"transfer-encoding", b"connection", b"date", b"via", b"expect", b"upgrade", b"max-forwards")
CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE, VIA, EXPECT, UPGRADE, MAX_FORWARDS = (1 << place for place in range(8))
FRAMES_BODY = CONTENT_LENGTH | TRANSFER_ENCODING
_BITS = {name: 1 << place for place, name in enumerate(NOTABLE)}

_KEEP_ALIVE = [b"keep-alive"]
_MOST_DIGITS = 18  # as grammar.length has it

LF_ALONE = "a line of the head ends with LF alone"


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
        self.is_persistent = _is_persistent(section, minor)  # the client wants to use its connection again


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
        self.is_persistent = _is_persistent(section, minor)  # the connection can be used again (RFC 9112 9.3)


if compiled.heads is not None:
    compiled.heads.use(RequestHead, ResponseHead)


def _is_persistent(section: Section, minor: int) -> bool:
    """RFC 9112 9.3. Computed once for each head: Connection may fill the whole head and have thousands of members."""
    if not section.notable & CONNECTION:
        return minor == 1
    options = section[b"connection"]
    if options == _KEEP_ALIVE:  # nearly always
        return True
    members = list_members(options)
    return b"close" not in members and (minor == 1 or b"keep-alive" in members)


def head_end(data: bytes | bytearray, malformed: type[ProxyError], start: int = 0) -> int:
    """The position behind the blank line that ends the head at the front of `data`; -1 if the blank line is not there yet.

    The first `start` bytes were searched before. Raises `malformed` when a line ends with LF alone: the end of such a head
    would never be found here (RFC 9112 2.2).
    """
    end = data.find(b"\r\n\r\n", max(0, start - 3))
    if end >= 0:
        return end + 4  # the parser refuses a line before it that ends with LF alone
    line_feed = data.find(b"\n", max(0, start - 1))
    while line_feed >= 0:
        if line_feed == 0 or data[line_feed - 1] != 0x0D:
            raise malformed(LF_ALONE)
        line_feed = data.find(b"\n", line_feed + 1)
    return -1


def kept_bytes(block: bytes) -> int:
    """An upper bound of the memory that a remembered head takes, in bytes: this block, the head, and the values computed from it.

    Measured with CPython 3.11: each byte is stored six times (in the block, in the name as it came, in lower case, in the lines
    that travel on, in a whole head for the other side, and in the access log's part), and each field costs its objects.
    """
    return 1792 + 6 * len(block) + 300 * block.count(b"\n")


def parse_request(block: bytes, limits: HeadLimits) -> RequestHead:
    """Parse a whole request head, blank line included.

    Raises BadRequest, TargetTooLong, HeadTooLarge or VersionNotSupported.
    """
    if compiled.heads is not None and len(block) <= limits.head_bytes:
        head: RequestHead | None = compiled.heads.read_request(block, limits.line_bytes, limits.fields)
        if head is not None:
            if head.section.notable & CONNECTION:
                head.is_persistent = _is_persistent(head.section, head.minor)
            return head
    line_end = block.find(b"\r\n")
    method, target, minor = parse_request_line(block[:line_end], limits)
    return RequestHead(method, target, minor, parse_fields(block, line_end + 2, limits, HeadTooLarge, BadRequest), True)


def parse_request_line(line: bytes, limits: HeadLimits) -> tuple[bytes, bytes, int]:
    """Method, target and minor version of a request line without its CRLF. Raises as `parse_request`."""
    if len(line) > limits.line_bytes:
        raise TargetTooLong(f"the request line has {len(line)} bytes, at most {limits.line_bytes} are allowed")
    match = grammar.request_line.fullmatch(line)
    if match is None:
        raise _bad_request_line(line)
    method, target, major, minor = match.groups()
    if major != b"1":
        raise VersionNotSupported(f"HTTP/{major.decode()}.{minor.decode()}")
    # RFC 9110 2.5: a minor version that we do not know is read as the highest one that we do.
    return method, target, 1 if minor != b"0" else 0


def parse_response(block: bytes, limits: HeadLimits) -> ResponseHead:
    """Parse a whole response head, blank line included. Raises BadResponse."""
    if compiled.heads is not None and len(block) <= limits.head_bytes:
        head: ResponseHead | None = compiled.heads.read_response(block, limits.line_bytes, limits.fields)
        if head is not None:
            if head.section.notable & CONNECTION:
                head.is_persistent = _is_persistent(head.section, head.minor)
            return head
    line_end = block.find(b"\r\n")
    match = grammar.status_line.fullmatch(block, 0, line_end)
    if match is None:
        line = block[:line_end]
        raise BadResponse(LF_ALONE if b"\n" in line else f"not a status line: {line[:80]!r}")
    major, minor, status, reason = match.groups()
    if major != b"1":
        raise BadResponse(f"the server speaks HTTP/{major.decode()}.{minor.decode()}")
    fields = parse_fields(block, line_end + 2, limits, BadResponse, BadResponse)
    return ResponseHead(int(status), reason or b"", min(int(minor), 1), fields)


def parse_fields(block: bytes, start: int, limits: HeadLimits, too_large: type[ProxyError], malformed: type[ProxyError],
                 ) -> Fields:
    """The fields from `start` up to the blank line that ends `block` (RFC 9112 5), also of a trailer section.

    Raises `too_large` beyond the limits and `malformed` for anything that is not a field line.
    """
    if len(block) > limits.head_bytes:
        raise too_large(f"the head has {len(block)} bytes, at most {limits.head_bytes} are allowed")
    match = grammar.field_block.match(block, start)
    if match is None or match.end() != len(block) - 2:
        raise malformed(_what_is_wrong(block, match.end() if match else start))
    found = grammar.fields.findall(block, start)
    if len(found) > limits.fields:
        raise too_large(f"the head has {len(found)} fields, at most {limits.fields} are allowed")
    # No line can be too long unless all lines together are longer than the limit.
    if len(block) - start > limits.line_bytes:
        for line in block[start:-2].split(b"\r\n"):
            if len(line) > limits.line_bytes:
                name = line.partition(b":")[0]
                raise too_large(f"the line of the field {name[:80].decode()} has {len(line)} bytes, at most {limits.line_bytes} "
                                "are allowed")
    if b" \r\n" in block or b"\t\r\n" in block:
        return [(name, value.rstrip(b" \t")) for name, value in found]
    return found


def list_members(values: Sequence[bytes]) -> list[bytes]:
    """The members of a comma-separated list field in lower case, without empty ones and repetitions (RFC 9110 5.6.1)."""
    # Repetitions are removed first: a client may send thousands, and the work on each member costs ten times the split.
    found = dict.fromkeys(b",".join(values).lower().split(b","))
    members = dict.fromkeys([member.strip(b" \t") for member in found])
    return [member for member in members if member]


def _bad_request_line(line: bytes) -> ProxyError:
    parts = line.split(b" ")
    if len(parts) == 3 and parts[2].startswith(b"HTTP/") and grammar.token.fullmatch(parts[0]):
        version = parts[2][5:]
        if not (len(version) == 3 and version[:1].isdigit() and version[1:2] == b"." and version[2:].isdigit()):
            return VersionNotSupported(f"not a version of HTTP: {parts[2][:20]!r}")
        if not parts[1]:
            return BadRequest(f"no target in the request line: {line[:80]!r}")
        return BadRequest(f"a byte in the request target that no URI may hold: {parts[1][:80]!r}")
    if b"\n" in line:
        return BadRequest(LF_ALONE)
    return BadRequest(f"not a request line: {line[:80]!r}")


def _what_is_wrong(block: bytes, position: int) -> str:
    whole = block[position:].split(b"\n", 1)[0]
    line = whole[:80]
    if not whole.endswith(b"\r"):
        return LF_ALONE
    if line[:1] in (b" ", b"\t"):
        return f"a folded line (obs-fold): {line!r}"
    name, colon, _ = line.partition(b":")
    if colon and name.rstrip(b" \t") != name:
        return f"a blank between field name and colon: {line!r}"
    if grammar.control.search(whole, 0, len(whole) - 1):
        return f"a control byte in a field: {line!r}"
    return f"not a field line: {line!r}"
