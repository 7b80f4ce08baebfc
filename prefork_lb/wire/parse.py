"""From bytes to heads, strictly.

A head that does not match the grammar is refused, never repaired. A head that two readers understand differently can be used to
smuggle requests (RFC 9112 11.2).
"""
from __future__ import annotations

from typing import Final

from prefork_lb.errors import BadRequest, BadResponse, HeadTooLarge, ProxyError, TargetTooLong, VersionNotSupported
from prefork_lb.wire import compiled, grammar
from prefork_lb.wire.head import CONNECTION, Fields, HeadLimits, RequestHead, ResponseHead, is_persistent

LF_ALONE: Final = "a line of the head ends with LF alone"


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
                head.is_persistent = is_persistent(head.section, head.minor)
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
                head.is_persistent = is_persistent(head.section, head.minor)
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
