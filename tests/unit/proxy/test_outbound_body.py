"""The body of a request as it goes to a server."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator, Sequence

import pytest

from prefork_lb.errors import BadRequest, ClientGone, InvariantError
from prefork_lb.proxy.outbound import REQUEST_PIECE_BYTES, OutboundBody
from prefork_lb.wire.framing import CHUNKED, NO_BODY, Framing, FramingKind
from tests.unit.proxy.loopback import Source


def drained(body: OutboundBody) -> list[bytes]:
    return [body.first, *iter(body.next_piece, b"")]


def body_of(framing: Framing, *parts: bytes, trailers: Sequence[tuple[bytes, bytes]] = ()) -> OutboundBody:
    return OutboundBody(Source(*parts, trailers=trailers), framing)


def length(number: int) -> Framing:
    return Framing(FramingKind.LENGTH, number)


def test_no_body_is_no_piece_and_no_read() -> None:
    source = Source(b"never")
    body = OutboundBody(source, NO_BODY)
    assert drained(body) == [b""]
    assert body.ended and body.is_replayable
    assert source.limits == []


def test_a_length_of_zero_reads_nothing() -> None:
    source = Source(b"never")
    assert drained(OutboundBody(source, length(0))) == [b""]
    assert source.limits == []


def test_a_body_of_known_length_is_read_to_its_length_and_no_further() -> None:
    source = Source(b"hello", b" wo", b"rld", b"excess")
    body = OutboundBody(source, length(11))
    assert drained(body) == [b"hello", b" wo", b"rld"]
    assert source.limits == [11, 6, 3]
    assert body.ended


def test_pieces_have_a_bound() -> None:
    source = Source(bytes(REQUEST_PIECE_BYTES), b"x")
    assert [len(piece) for piece in drained(OutboundBody(source, length(REQUEST_PIECE_BYTES + 1)))] == [REQUEST_PIECE_BYTES, 1]
    assert source.limits == [REQUEST_PIECE_BYTES, 1]


def test_a_chunked_body_is_framed_anew_with_its_trailers() -> None:
    body = body_of(CHUNKED, b"hello", b"x" * 16, trailers=[(b"X-Sum", b"1"), (b"Host", b"evil.test")])
    assert drained(body) == [b"5\r\nhello\r\n", b"10\r\n" + b"x" * 16 + b"\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]


def test_an_empty_chunked_body_is_its_last_chunk() -> None:
    body = body_of(CHUNKED)
    assert drained(body) == [b"0\r\n\r\n"]
    assert body.ended and body.is_replayable


@pytest.mark.parametrize(
    "field",
    [
        (b"X-A", b"1\r\nX-B: 2"),
        (b"X-A", b"\n"),
        (b"X-A", b"\0"),
        (b"X A", b"1"),
        (b"X-A\r\nX-B", b"1"),
        (b"", b"1"),
        (b"X-A", b"1\r\n\r\nGET / HTTP/1.1"),
    ],
)
def test_a_trailer_cannot_split_the_request(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadRequest, match="no field may hold"):
        drained(body_of(CHUNKED, b"x", trailers=[field]))


def test_a_body_is_replayable_until_its_second_piece_is_asked_for() -> None:
    body = body_of(length(4), b"ab", b"cd")
    assert body.is_replayable and not body.ended
    assert body.next_piece() == b"cd"
    assert not body.is_replayable


def test_a_body_in_one_piece_stays_replayable() -> None:
    body = body_of(length(2), b"ab")
    assert body.next_piece() == b"" and body.next_piece() == b""
    assert body.is_replayable


def test_a_body_whose_second_read_fails_cannot_be_replayed() -> None:
    body = OutboundBody(Source(b"ab", ClientGone("left")), length(4))
    with pytest.raises(ClientGone):
        body.next_piece()
    assert not body.is_replayable


def test_an_error_of_the_first_read_comes_before_any_server_is_claimed() -> None:
    with pytest.raises(ClientGone):
        OutboundBody(Source(ClientGone("left")), length(4))


def test_a_short_body_is_collected_before_it_goes_anywhere() -> None:
    source = Source(b"hello", b" wo", b"rld", b"excess")
    body = OutboundBody(source, length(11), collect=11)
    assert body.first == b"hello world" and body.ended
    body.keep(100, 100)  # for another attempt: it is here already
    for _ in range(2):
        body.rewind()
        assert drained(body) == [b"hello world"]
    assert body.is_replayable and source.limits == [11, 6, 3]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process grows beyond 4 KiB."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("piece", [100, 3000, 30_000])
def test_a_full_disk_costs_the_retry_and_not_the_request(piece: int) -> None:
    pieces = [b"x" * piece] * (60_000 // piece)
    body = OutboundBody(Source(*pieces), length(60_000))
    body.keep(1000, 1 << 20)
    assert drained(body) == pieces
    assert not body.is_replayable
    body.forget()


@pytest.mark.usefixtures("full_disk")
def test_what_did_not_fit_on_the_disk_is_known_before_the_body_is_sent_again() -> None:
    body = OutboundBody(Source(b"ab", b"x" * 4000, b"y" * 100), length(4102))
    body.keep(1000, 1 << 20)
    drained(body)  # the last piece is within what a file's buffer holds back
    assert not body.is_replayable


def test_a_longer_body_is_passed_on_as_it_comes() -> None:
    assert drained(OutboundBody(Source(b"hello", b" wo", b"rld"), length(11), collect=10)) == [b"hello", b" wo", b"rld"]


def test_a_chunked_body_is_collected_up_to_the_limit() -> None:
    short = OutboundBody(Source(b"ab", b"c", trailers=[(b"X-Sum", b"1")]), CHUNKED, collect=100)
    assert short.first == b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n" and short.ended
    long = OutboundBody(Source(b"ab", b"cd", b"e"), CHUNKED, collect=10)
    assert drained(long) == [b"2\r\nab\r\n2\r\ncd\r\n", b"1\r\ne\r\n", b"0\r\n\r\n"]


def test_a_client_that_leaves_while_its_body_is_collected_is_met_before_any_server_is_claimed() -> None:
    with pytest.raises(ClientGone):
        OutboundBody(Source(b"ab", ClientGone("left")), length(4), collect=4)


def test_a_source_that_ends_early_without_an_error_is_our_bug() -> None:
    body = body_of(length(4), b"ab")
    with pytest.raises(InvariantError, match="ended early"):
        body.next_piece()
