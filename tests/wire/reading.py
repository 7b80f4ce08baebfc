"""A message read the way a front end or the engine reads it: all at once, or in pieces of a given size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefork_lb.errors import BadRequest, BadResponse, ProxyError, TruncatedBody
from prefork_lb.wire.chunked import ChunkedDecoder
from prefork_lb.wire.framing import Framing, request_framing, response_framing
from prefork_lb.wire.head import Fields, HeadLimits, RequestHead, ResponseHead
from prefork_lb.wire.parse import head_end, parse_request, parse_response
from prefork_lb.wire.target import Destination, destination

DEFAULT = HeadLimits()


@dataclass(frozen=True, slots=True)
class RequestReading:
    head: RequestHead
    framing: Framing
    goal: Destination
    rest: bytes


@dataclass(frozen=True, slots=True)
class ResponseReading:
    head: ResponseHead
    framing: Framing
    rest: bytes


@dataclass(frozen=True, slots=True)
class ChunkedReading:
    data: bytes
    trailers: Fields
    excess: bytes
    done: bool


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in pieces of `size` bytes; 0 gives it whole."""
    step = size or max(1, len(data))
    return (data[start : start + step] for start in range(0, len(data), step))


def read_request(data: bytes, limits: HeadLimits = DEFAULT, piece: int = 0) -> RequestReading | None:
    """None when the head is not complete. Raises what the rules of `wire` raise."""
    end = _head_end(data, BadRequest, piece)
    if end < 0:
        return None
    head = parse_request(data[:end], limits)
    framing = request_framing(head)
    return RequestReading(head, framing, destination(head), data[end:])


def read_response(
    data: bytes, method: bytes = b"GET", limits: HeadLimits = DEFAULT, piece: int = 0
) -> ResponseReading | None:
    """None when the head is not complete. Raises BadResponse."""
    end = _head_end(data, BadResponse, piece)
    if end < 0:
        return None
    head = parse_response(data[:end], limits)
    return ResponseReading(head, response_framing(head, method), data[end:])


def read_chunked(data: bytes, limits: HeadLimits = DEFAULT, piece: int = 0) -> ChunkedReading:
    """Raises TruncatedBody for what is malformed."""
    return read_chunked_pieces(pieces(data, piece), limits)


def read_chunked_pieces(parts: Iterator[bytes], limits: HeadLimits = DEFAULT) -> ChunkedReading:
    """The same for pieces of any sizes."""
    decoder = ChunkedDecoder(TruncatedBody, limits)
    data = b"".join([decoder.decode(part) for part in parts])
    return ChunkedReading(data, decoder.trailers, decoder.excess, decoder.done)


def _head_end(data: bytes, malformed: type[ProxyError], piece: int) -> int:
    buffer = b""
    for part in pieces(data, piece):
        seen = len(buffer)
        buffer += part
        end = head_end(buffer, malformed, seen)
        if end >= 0:
            return end
    return -1
