"""The response as it comes from a server: heads and bodies, whole and broken, quick and slow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest

from prefork_lb.clock import ManualClock, monotonic
from prefork_lb.errors import BadResponse, ClientGone, ResponseTimeout, StaleConnection, TruncatedBody
from prefork_lb.net.stream import Stream
from prefork_lb.proxy.inbound import BodyReader, HeadReader
from prefork_lb.wire.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind
from prefork_lb.wire.head import HeadLimits, ResponseHead
from prefork_lb.wire.parse import parse_response
from tests.support.watched import Watching
from tests.unit.proxy.loopback import DEADLINE_S, Client, Loopback, PiecewiseStream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def head_reader(stream: Stream, reused: bool = False, limits: HeadLimits | None = None) -> HeadReader:
    limits = limits or HeadLimits()
    return HeadReader(stream, limits, reused, functools.partial(parse_response, limits=limits))


def final(
    *parts: bytes, reused: bool = False, client: Client | None = None, limits: HeadLimits | None = None
) -> tuple[ResponseHead, bytes]:
    """The final head, and what came behind it, of what a server says before it ends its side."""
    with Loopback() as loopback:
        loopback.say(*parts)
        reader = head_reader(loopback.stream, reused, limits)
        head = reader.read_final(client or Client(), DEADLINE_S, monotonic)
        return head, reader.rest


def test_a_head_is_read_and_what_follows_is_kept() -> None:
    head, rest = final(OK + b"hi")
    assert (head.status, head.reason, head.fields, rest) == (200, b"OK", [(b"Content-Length", b"2")], b"hi")


def test_a_head_may_come_a_byte_at_a_time() -> None:
    clock = ManualClock()
    reader = head_reader(PiecewiseStream([OK[i : i + 1] for i in range(len(OK))], clock, 0.0))
    assert reader.read_final(Client(), 1.0, clock).status == 200


def test_interim_responses_are_relayed_in_order() -> None:
    client = Client()
    head, rest = final(CONTINUE + HINTS + OK + b"hi", client=client)
    assert [(interim.status, interim.fields) for interim in client.relayed] == [
        (100, []),
        (103, [(b"Link", b"</a.css>")]),
    ]
    assert (head.status, rest) == (200, b"hi")


def test_fields_of_the_servers_connection_are_not_relayed() -> None:
    client = Client()
    final(
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\n"
        b"Keep-Alive: 5\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 5\r\nLink: <b>\r\n\r\n" + OK,
        client=client,
    )
    assert client.relayed[0].fields == [(b"Link", b"<a>"), (b"Link", b"<b>")]


def test_a_switch_of_protocols_that_nobody_asked_for_is_refused() -> None:
    client = Client()
    with pytest.raises(BadResponse, match="101"):
        final(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", client=client)
    assert client.relayed == []


def test_interim_responses_have_a_bound() -> None:
    client = Client()
    with pytest.raises(BadResponse, match="more than 64 interim"):
        final(HINTS * 70, client=client)
    assert len(client.relayed) == 64


@pytest.mark.parametrize(
    "part",
    [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\n\n", b"HTTP/1.1 200 OK\r\n folded\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n"],
)
@pytest.mark.parametrize("reused", [False, True])
def test_a_malformed_head_is_the_servers_fault_also_on_a_kept_connection(part: bytes, reused: bool) -> None:
    with pytest.raises(BadResponse):
        final(part, reused=reused)


def test_a_head_over_the_limit_is_refused_before_it_ends() -> None:
    clock = ManualClock()
    stream = PiecewiseStream([b"HTTP/1.1 200 OK\r\n"] + [b"X: 1\r\n"] * 100, clock, 0.0)
    with pytest.raises(BadResponse, match="more than 200 bytes"):
        head_reader(stream, limits=HeadLimits(head_bytes=200)).read_final(Client(), 1.0, clock)


def test_an_end_before_the_response_is_stale_only_on_a_kept_connection() -> None:
    with pytest.raises(StaleConnection, match="closed before the response$"):
        final(reused=True)
    with pytest.raises(BadResponse, match="closed before the response$"):
        final(reused=False)


@pytest.mark.parametrize(
    "parts", [(b"H",), (OK[:-1],), (CONTINUE,)], ids=["a byte", "most of a head", "an interim response"]
)
def test_an_end_after_a_byte_of_the_response_is_never_stale(parts: Sequence[bytes]) -> None:
    with pytest.raises(BadResponse, match="closed before the response"):
        final(*parts, reused=True)


def test_a_reset_before_the_response_is_stale_on_a_kept_connection() -> None:
    for reused, expected in ((True, StaleConnection), (False, BadResponse)):
        with Loopback() as loopback:
            loopback.stream.send(b"unread", DEADLINE_S)
            loopback.peer.close()  # with unread data: the other side sees a reset
            with pytest.raises(expected, match="connection lost before the response: Connection reset by peer"):
                head_reader(loopback.stream, reused).read_final(Client(), DEADLINE_S, monotonic)


def test_a_client_that_left_ends_the_wait() -> None:
    clock = ManualClock()
    with pytest.raises(ClientGone, match="before the response"):
        head_reader(PiecewiseStream([], clock, 0.0)).read_final(Client(gone=True), 5.0, clock)


def test_the_response_timeout_is_for_the_whole_head() -> None:
    clock = ManualClock()
    stream = PiecewiseStream([OK[i : i + 1] for i in range(len(OK))], clock, 1.0)
    with pytest.raises(ResponseTimeout, match="no response head within 5 s"):
        head_reader(stream).read_final(Client(), 5.0, clock)
    assert stream.asked == [5.0, 4.0, 3.0, 2.0, 1.0]  # and at 0 the stream is not asked again
    assert clock.now == 5.0


def test_each_head_has_the_response_timeout_anew() -> None:
    clock = ManualClock()
    stream = PiecewiseStream([CONTINUE, HINTS, OK], clock, 4.0)
    assert head_reader(stream).read_final(Client(), 5.0, clock).status == 200
    assert clock.now == 12.0


def test_silence_is_a_timeout_also_on_a_kept_connection() -> None:
    clock = ManualClock()
    with pytest.raises(ResponseTimeout):
        head_reader(PiecewiseStream([], clock, 0.0), reused=True).read_final(Client(), 5.0, clock)
    assert clock.now == 5.0


def body_reader(
    stream: Stream, framing: Framing, rest: bytes = b"", gone: Callable[[], bool] = lambda: False
) -> BodyReader:
    return BodyReader(stream, framing, rest, HeadLimits(), DEADLINE_S, Watching(gone))


def body(framing: Framing, *parts: bytes, rest: bytes = b"") -> tuple[bytes, BodyReader]:
    """The whole body, and its reader, of what a server says before it ends its side."""
    with Loopback() as loopback:
        loopback.say(*parts)
        reader = body_reader(loopback.stream, framing, rest)
        return b"".join(iter(reader.read, b"")), reader


def length(number: int) -> Framing:
    return Framing(FramingKind.LENGTH, number)


CODED = b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("split", range(12))
def test_a_body_of_known_length_ends_with_its_last_byte(split: int) -> None:
    data, reader = body(length(11), b"hello world"[split:], rest=b"hello world"[:split])
    assert data == b"hello world"
    assert reader.is_received and not reader.excess


@pytest.mark.parametrize("split", range(len(CODED) + 1))
def test_a_chunked_body_ends_with_its_trailers(split: int) -> None:
    data, reader = body(CHUNKED, CODED[split:], rest=CODED[:split])
    assert data == b"hello world"
    assert reader.is_received and not reader.excess
    assert reader.trailers == [(b"X-Sum", b"1")]


@pytest.mark.parametrize("split", [0, 5, 11])
def test_a_body_until_close_ends_with_the_connection(split: int) -> None:
    data, reader = body(UNTIL_CLOSE, b"hello world"[split:], rest=b"hello world"[:split])
    assert data == b"hello world"
    assert reader.is_received and not reader.excess


@pytest.mark.parametrize("framing", [NO_BODY, length(0)])
def test_no_body_is_received_at_once(framing: Framing) -> None:
    clock = ManualClock()
    stream = PiecewiseStream([b"never"], clock, 0.0)
    reader = body_reader(stream, framing)
    assert reader.is_received and not reader.excess and reader.trailers == []
    assert reader.read() == b""
    assert stream.asked == []


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (NO_BODY, b"x"),
        (length(0), b"x"),
        (length(2), b"hix"),
        (CHUNKED, b"0\r\n\r\nx"),
        (NO_BODY, b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
def test_bytes_behind_the_body_put_the_connection_out_of_step(framing: Framing, rest: bytes) -> None:
    data, reader = body(framing, rest=rest)
    assert reader.is_received and reader.excess
    assert data == (b"hi" if framing == length(2) else b"")


def test_all_is_received_before_all_is_read() -> None:
    clock = ManualClock()
    reader = body_reader(PiecewiseStream([], clock, 0.0), length(2), b"hi")
    assert reader.is_received
    assert (reader.read(), reader.read()) == (b"hi", b"")


def test_no_byte_beyond_the_length_is_taken_from_the_stream() -> None:
    with Loopback() as loopback:
        loopback.say(b"hi" + OK)
        reader = body_reader(loopback.stream, length(2))
        assert (reader.read(), reader.read()) == (b"hi", b"")
        assert loopback.stream.receive(100, DEADLINE_S) == OK


@pytest.mark.parametrize(
    ("framing", "part"),
    [(length(11), b"hello"), (length(1), b""), (CHUNKED, CODED[:12]), (CHUNKED, b""), (CHUNKED, CODED[:-1])],
)
def test_an_early_end_is_no_end(framing: Framing, part: bytes) -> None:
    with pytest.raises(TruncatedBody, match="closed in the middle of the body"):
        body(framing, part)


@pytest.mark.parametrize("framing", [length(11), CHUNKED, UNTIL_CLOSE])
def test_a_reset_is_no_end_either(framing: Framing) -> None:
    with Loopback() as loopback:
        loopback.stream.send(b"unread", DEADLINE_S)
        loopback.peer.sendall(b"5\r\nhello\r\n" if framing is CHUNKED else b"hello")
        loopback.peer.close()
        reader = body_reader(loopback.stream, framing)
        with pytest.raises(TruncatedBody, match="connection lost in the middle of the body: Connection reset by peer"):
            while reader.read():
                pass
        assert not reader.is_received


def test_a_malformed_chunk_breaks_the_body_off() -> None:
    with pytest.raises(TruncatedBody, match="not a chunk size"):
        body(CHUNKED, CODED[:10] + b"zz\r\n")


def test_a_malformed_chunk_right_behind_the_head_is_found_before_the_head_is_passed_on() -> None:
    with Loopback() as loopback, pytest.raises(TruncatedBody, match="not a chunk size"):
        body_reader(loopback.stream, CHUNKED, b"zz\r\n")


def test_a_server_that_pauses_for_too_long_breaks_the_body_off() -> None:
    clock = ManualClock()
    reader = body_reader(PiecewiseStream([b"hel"], clock, 1.0), length(5))
    assert reader.read() == b"hel"
    with pytest.raises(TruncatedBody, match="no byte of the body for 10 s"):
        reader.read()
    assert clock.now == 1.0 + DEADLINE_S


def test_a_slow_body_is_well_as_long_as_it_moves() -> None:
    clock = ManualClock()
    stream = PiecewiseStream([b"x"] * 20, clock, DEADLINE_S - 1)
    reader = body_reader(stream, length(20))
    assert b"".join(iter(reader.read, b"")) == b"x" * 20
    assert stream.asked == [DEADLINE_S] * 20


def test_a_client_that_left_while_the_server_pauses_ends_the_body() -> None:
    clock = ManualClock()
    reader = body_reader(PiecewiseStream([], clock, 0.0), length(5), gone=lambda: True)
    with pytest.raises(ClientGone, match="middle of the response"):
        reader.read()
