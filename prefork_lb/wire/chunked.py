"""The chunked transfer coding (RFC 9112 7.1), decoded piece by piece and strictly.

A peer may send each byte in its own chunk: six bytes on the wire, and one round of the decoder. So consecutive whole chunks are
joined in one call (`join_chunks`, in Python and in C), and the data of one receive is returned as one piece.
"""
from __future__ import annotations

from prefork_lb.errors import ProxyError
from prefork_lb.wire import compiled, grammar
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.head import Fields, HeadLimits
from prefork_lb.wire.parse import head_end, parse_fields

LAST_CHUNK = b"0\r\n\r\n"

_FEWEST_BYTES, _FIRST_BYTES, _MOST_BYTES = 4 * 1024, 16 * 1024, 512 * 1024
_SIZE_LINE_BYTES = 17  # fifteen digits and CRLF
# Bytes of an unfinished line whose grammar is checked each time more comes: they hold the size, and extensions are rare.
_LOOKED_AT = 64


class ChunkedDecoder:
    """Takes a chunked body's bytes in pieces of any size and returns the data.

    Extensions are checked and dropped (RFC 9112 7.1.1). After the last chunk, `done` is true, `trailers` holds the trailer
    fields, and `excess` holds the bytes received behind the body.
    """

    def __init__(self, malformed: type[ProxyError], limits: HeadLimits) -> None:
        """`malformed` is raised for anything that is not the coding, and for trailers or extensions beyond `limits`."""
        self.receive_bytes = _FIRST_BYTES
        """How many bytes to receive for the next `decode`: fewer when much of the data is framing that Python has to parse."""
        self._malformed = malformed
        self._limits = limits
        self._join = join_chunks if compiled.chunks is None else compiled.chunks.join_chunks
        self._joins_for_nothing = compiled.chunks is not None
        self._cheap = 0  # bytes of framing in the present piece that cost next to nothing
        self._pending = b""  # an unfinished line, or trailer section
        self._left = 0  # bytes of the present chunk's data that are still to come
        self._after_data = False  # the CRLF behind a chunk's data is due
        self._in_trailers = False
        self.done = False
        self.trailers: Fields = []
        self.excess = b""

    def decode(self, data: bytes) -> bytes:
        """The data in the next bytes of the body; may be empty while a line is incomplete. Raises the error given."""
        left = self._left
        if left > len(data):  # the whole piece is data of one large chunk: it needs no parsing and no copy
            self._left = left - len(data)
            if self.receive_bytes < _MOST_BYTES:
                self.receive_bytes *= 2
            return data
        received = len(data)
        self._cheap = 0
        content = self._content(data)
        if received >= self.receive_bytes:
            if 4 * (received - len(content) - self._cheap) > received:
                self.receive_bytes = max(_FEWEST_BYTES, self.receive_bytes // 2)
            elif self.receive_bytes < _MOST_BYTES:
                self.receive_bytes *= 2
        return content

    def _content(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        if self._pending:
            data, self._pending = self._pending + data, b""
        position = 0
        while not self.done and position < len(data):
            if self._left:
                piece = data[position:position + self._left]
                parts.append(piece)
                position += len(piece)
                self._left -= len(piece)
                self._after_data = self._left == 0
                continue
            if self._in_trailers:
                position = self._trailer_section(data, position)
            elif self._after_data:
                position = self._data_end(data, position)
            else:
                start = position
                content, position = self._join(data, start)
                if content:
                    parts.append(content)
                    if self._joins_for_nothing:
                        self._cheap += position - start - len(content)
                if position < len(data):
                    position = self._size_line(data, position)
            if position < 0:
                return b"".join(parts)
        if self.done:
            self.excess += data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _size_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            if data.find(b"\n", position) >= 0:
                raise self._not_a_size(data[position:])
            # An invalid line is refused by its first bytes. Otherwise its sender would hold a worker until the idle timeout.
            if grammar.chunk_size_begun.fullmatch(data, position, min(len(data), position + _LOOKED_AT)) is None:
                raise self._not_a_size(data[position:])
            return self._wait(data, position, self._limits.line_bytes + 1)  # CR may be there already
        match = grammar.chunk_size.fullmatch(data, position, end)
        if match is None or end - position > self._limits.line_bytes:
            raise self._not_a_size(data[position:end])
        self._left = int(match[1], 16)
        self._in_trailers = self._left == 0
        return end + 2

    def _not_a_size(self, line: bytes) -> ProxyError:
        what = "a chunk's line ends with LF alone" if b"\n" in line else "not a chunk size"
        return self._malformed(f"{what}: {line[:80]!r}")

    def _data_end(self, data: bytes, position: int) -> int:
        if data[position:position + 2] == b"\r\n":
            self._after_data = False
            return position + 2
        if data[position:] == b"\r":
            return self._wait(data, position, 2)
        raise self._malformed(f"a chunk is longer than its size says: {data[position:position + 20]!r}")

    def _trailer_section(self, data: bytes, position: int) -> int:
        if data[position:position + 2] == b"\r\n":
            self.done = True
            return position + 2
        section = data[position:]
        end = head_end(section, self._malformed)
        if end < 0:
            return self._wait(data, position, self._limits.head_bytes)
        self.trailers = parse_fields(section[:end], 0, self._limits, self._malformed, self._malformed)
        self.done = True
        return position + end

    def _wait(self, data: bytes, position: int, limit: int) -> int:
        if len(data) - position > limit:
            raise self._malformed(f"a line of the chunked coding is longer than {limit} bytes")
        self._pending = data[position:]
        return -1


def join_chunks(data: bytes, position: int) -> tuple[bytes, int]:
    """Join the consecutive whole chunks from `position` on. Returns their content and the position behind them.

    Stops before the last chunk, an incomplete chunk, a chunk with extensions, and an invalid byte.
    """
    parts: list[bytes] = []
    sizes: dict[bytes, int] = {}
    while (end := data.find(b"\r\n", position, position + _SIZE_LINE_BYTES)) > 0:
        line = data[position:end]
        size = sizes.get(line, 0)
        if not size:
            if grammar.plain_chunk_size.fullmatch(line) is None:
                break
            size = sizes[line] = int(line, 16)
        start = end + 2
        after = start + size
        if not size or data[after:after + 2] != b"\r\n":
            break
        parts.append(data[start:after])
        position = after + 2
    return b"".join(parts), position


def encode_chunk(data: bytes) -> bytes:
    """One chunk; `data` must not be empty, for an empty chunk is the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_last_chunk(trailers: Fields) -> bytes:
    """The last chunk with a trailer section."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + field_lines(trailers) + b"\r\n"
