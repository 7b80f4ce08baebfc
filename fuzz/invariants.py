"""What must hold for any bytes. Each check raises AssertionError, or lets through an exception that should not be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prefork_lb.balance.keys import policy_key_finder
from prefork_lb.errors import BadRequest, ProxyError, TruncatedBody
from prefork_lb.net.stream import Stream
from prefork_lb.proxy.outbound import request_block
from prefork_lb.proxy.request import Request
from prefork_lb.proxy.response_fields import final_block, final_fields
from prefork_lb.routing.path import plain_path
from prefork_lb.wire import compiled
from prefork_lb.wire.chunked import ChunkedDecoder, encode_chunk, encode_last_chunk
from prefork_lb.wire.cookies import cookie, without_cookie
from prefork_lb.wire.fields import HOP_BY_HOP, allowed_trailers
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.framing import request_framing, response_framing
from prefork_lb.wire.head import Fields, HeadLimits, RequestHead, ResponseHead
from prefork_lb.wire.parse import head_end, parse_request, parse_response
from prefork_lb.wire.proxy_protocol import Parsed, parse_proxy_header, proxy_header
from prefork_lb.wire.target import destination
from tests.wire.reading import ChunkedReading, read_chunked, read_chunked_pieces, read_request, read_response

T = TypeVar("T")

LIMITS = HeadLimits(head_bytes=4096, line_bytes=512, fields=40)
LEFT_OUT = frozenset((b"cookie", b"x-a", b"connection", b"content-length", b"via"))
URI, PATH, PARAMETER, SOURCE = (policy_key_finder(key, lambda address: address.startswith(("1", "2")))
                                for key in ("uri", "path", "query:a", "source"))
PEERS = (
    ClientInfo("192.0.2.7", b"http", 8000, False),
    ClientInfo("2001:db8::7", b"https", 443, True),
    ClientInfo("", b"http", 0, True),
)


class NoBody:
    """A body source and a client for requests that are never sent."""

    waiting: object = None

    def read(self, limit: int) -> bytes:
        raise NotImplementedError("nothing is sent here")

    def wait(self, server: Stream, timeout_s: float) -> bool:
        raise NotImplementedError("nothing is sent here")

    def trailers(self) -> Fields:
        raise NotImplementedError("nothing is sent here")

    def is_gone(self) -> bool:
        raise NotImplementedError("nothing is sent here")

    def relay(self, head: ResponseHead) -> None:
        raise NotImplementedError("nothing is sent here")


def check_request(data: bytes, pieces: Sequence[int]) -> bool:
    """Whether it is accepted; in pieces it must be read as it is whole, and what is sent on must be read as what was meant."""
    reading = _same(lambda piece: read_request(data, LIMITS, piece), pieces)
    if reading is None:
        return False
    for peer in PEERS:
        _check_sent(reading.head, peer)
    return True


def check_compiled(data: bytes) -> None:
    """The compiled heads must say of a whole head what the Python says, and write the same of it."""
    end = data.find(b"\r\n\r\n") + 4
    if compiled.heads is None or end < 4:
        return
    block = data[:end]
    heads, found = compiled.heads, _told(block)
    compiled.heads = None
    try:
        expected = _told(block)
    finally:
        compiled.heads = heads
    assert found == expected, f"compiled: {found!r}, Python: {expected!r}"


def _told(block: bytes) -> list[object]:
    """All that is said of a block, as a request and as a response."""
    told: list[object] = []
    try:
        asked = parse_request(block, LIMITS)
        told += [asked, asked.is_persistent, asked.section.notable, asked.section.length]
        told += [plain_path(asked.target), asked.section.without(LEFT_OUT, True).fields, asked.section.without(LEFT_OUT, False)]
        framing, goal = request_framing(asked), destination(asked)
        told += [framing, goal]
        told += [request_block(Request(asked, peer, NoBody(), NoBody()), goal, framing, "web", b"lb") for peer in PEERS]
    except ProxyError as exc:
        told.append((type(exc), str(exc)))
    try:
        answered = parse_response(block, LIMITS)
        told += [answered, answered.is_persistent, answered.section.notable, answered.section.length]
        told += [response_framing(answered, b"GET"), final_block(answered, b"lb", b"<", b">"), final_fields(answered, b"lb")]
    except ProxyError as exc:
        told.append((type(exc), str(exc)))
    return told


def check_response(data: bytes, method: bytes, pieces: Sequence[int]) -> bool:
    """Whether it is accepted; in pieces it must be read as it is whole."""
    return _same(lambda piece: read_response(data, method, LIMITS, piece), pieces) is not None


def check_unchecked_head(method: bytes, target: bytes, fields: Fields) -> bool:
    """Whether a head that no parser of ours has seen, as WSGI brings it, is accepted; then it must be sent on well."""
    verdicts = [_check_sent(RequestHead(method, target, 1, list(fields)), peer) for peer in PEERS]  # all of them
    return any(verdicts)


def check_chunked(data: bytes, cuts: Sequence[int]) -> bool:
    """Whether it is a whole chunked body; any splitting must give the same, and what was decoded must survive a round trip."""
    whole = _chunked(lambda: read_chunked(data, LIMITS))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    for other in (
        _chunked(lambda: read_chunked(data, LIMITS, 1)),
        _chunked(lambda: read_chunked_pieces(iter(parts), LIMITS)),
    ):
        assert other == whole, f"split: {other!r}, whole: {whole!r}"
    if whole is None or not whole.done:
        return False
    again = (encode_chunk(whole.data) if whole.data else b"") + encode_last_chunk(whole.trailers) + whole.excess
    assert read_chunked(again) == whole
    return True


def check_proxy_header(data: bytes) -> bool:
    """Whether a PROXY header is in front. Byte by byte it must be known at the byte that ends it, and stay known, or be
    refused and stay refused; what it says must survive being sent on."""
    verdict: Parsed | str | None = None
    end = -1
    while verdict is None and end < len(data):
        end += 1
        verdict = _proxy_header(data[:end])
    longest = 107 if data.startswith(b"P") else 16 + 4096
    assert end <= longest and (verdict is not None or end < longest), f"{end} bytes were read, and more are awaited"
    assert _proxy_header(data) == verdict, f"whole: {_proxy_header(data)!r}, after {end} bytes: {verdict!r}"
    if not isinstance(verdict, Parsed):
        return False
    assert verdict.length == end, f"{end} bytes were read for {verdict!r}"
    for version in (1, 2):
        again = proxy_header(version, verdict.source, verdict.destination)
        assert _proxy_header(again + data) == Parsed(verdict.source, verdict.destination, len(again))
    return True


def _proxy_header(data: bytes) -> Parsed | str | None:
    try:
        return parse_proxy_header(data)
    except BadRequest as exc:
        assert len(str(exc)) < 1000, "a message repeats what came without a bound"
        return "refused"


def _same(read: Callable[[int], T], pieces: Sequence[int]) -> T | None:
    """What `read` makes of it whole. In pieces it must make the same, or refuse it as well: of two faults, the one that is
    seen first depends on the pieces."""
    whole = _refused_as_none(lambda: read(0))
    for piece in pieces:
        other = _refused_as_none(lambda piece=piece: read(piece))  # type: ignore[misc]
        assert other == whole, f"in pieces of {piece}: {other!r}, whole: {whole!r}"
    return whole


def _refused_as_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ProxyError as exc:
        assert len(str(exc)) < 1000, "a message repeats what came without a bound"
        return None


def _chunked(read: Callable[[], ChunkedReading]) -> ChunkedReading | None:
    try:
        return read()
    except TruncatedBody:
        return None


def _check_sent(head: RequestHead, peer: ClientInfo) -> bool:
    try:
        framing, goal = request_framing(head), destination(head)
        block = request_block(Request(head, peer, NoBody(), NoBody()), goal, framing, "web", b"lb")
    except ProxyError:
        return False
    assert head_end(block, ProxyError) == len(block), "another message hides behind the head"
    sent = parse_request(block, HeadLimits(head_bytes=1 << 20, line_bytes=1 << 20, fields=1000))
    lines = [b"%b %b HTTP/1.1" % (head.method, goal.target), *(b"%b: %b" % field for field in sent.fields), b"", b""]
    # Bytes are compared without the blanks that may stand around a value.
    assert b"\r\n".join(lines).replace(b" ", b"").replace(b"\t", b"") == block.replace(b" ", b"").replace(b"\t", b"")
    assert (sent.method, sent.target) == (head.method, goal.target)
    assert request_framing(sent) == framing
    assert destination(sent).host == (b"web" if goal.host is None else goal.host)
    assert set(sent.index) & HOP_BY_HOP <= {b"transfer-encoding"}
    assert all(len(sent.index[name]) == 1 for name in (b"host", b"via", b"x-forwarded-for", b"forwarded"))
    assert len(sent.fields) <= len(head.fields) + 9, "a field became two"
    _check_origin(sent, peer)
    _check_keys(head, peer, goal.target)
    return True


def _check_keys(head: RequestHead, peer: ClientInfo, target: bytes) -> None:
    """A pool's key must be what the server sees, and never raise; a cookie that was taken out must be gone, and no other one."""
    request = Request(head, peer, NoBody(), NoBody())
    if target != b"*":
        assert URI(request) == target
        assert PATH(request) == target.partition(b"?")[0]
    value = PARAMETER(request)
    assert not value or b"a=" + value in head.target
    source = SOURCE(request)
    assert source == peer.address.encode() or (peer.address.endswith("7") and len(source) <= 45)
    values = head.index.get(b"cookie", ())
    left = without_cookie(values, b"a")
    assert cookie(left, b"a") is None and cookie(left, b"b") == cookie(values, b"b")


def _check_origin(sent: RequestHead, peer: ClientInfo) -> None:
    """A server must be able to believe the last word about the client, and of a stranger there must be no other."""
    address = peer.address.encode() or b"unknown"
    told = sent.index[b"x-forwarded-for"][0]
    assert told == address or (peer.trusted and told.endswith(b", " + address))
    if not peer.trusted:
        assert sent.index[b"x-forwarded-proto"] == [peer.scheme]
        assert b"x-real-ip" not in sent.index


def check_trailers(fields: Fields) -> None:
    """Of the trailers that travel on, none is a field that stops here."""
    assert not {name.lower() for name, _ in allowed_trailers(fields)} & HOP_BY_HOP


def decoder_state_is_final(data: bytes) -> None:
    """After the end everything is excess, and nothing is data."""
    decoder = ChunkedDecoder(TruncatedBody, LIMITS)
    try:
        decoder.decode(data)
    except TruncatedBody:
        return
    if decoder.done:
        excess, trailers = decoder.excess, list(decoder.trailers)
        assert decoder.decode(b"5\r\nhello\r\n") == b""
        assert (decoder.excess, decoder.trailers) == (excess + b"5\r\nhello\r\n", trailers)
