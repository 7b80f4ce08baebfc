"""The chunked coding, beyond the corpus: splitting, sizes, errors, encoding."""

from __future__ import annotations

import random

import pytest

from prefork_lb.errors import BadRequest, TruncatedBody
from prefork_lb.wire import compiled
from prefork_lb.wire.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk, encode_last_chunk
from prefork_lb.wire.head import HeadLimits
from tests.wire.reading import read_chunked, read_chunked_pieces


def decoder() -> ChunkedDecoder:
    return ChunkedDecoder(TruncatedBody, HeadLimits())


def test_the_error_given_is_raised() -> None:
    with pytest.raises(BadRequest, match="not a chunk size"):
        ChunkedDecoder(BadRequest, HeadLimits()).decode(b"x\r\n")


def test_data_of_an_unfinished_chunk_is_given_at_once() -> None:
    body = decoder()
    assert body.decode(b"a\r\n01234") == b"01234"
    assert body.decode(b"56") == b"56"
    assert not body.done
    assert body.decode(b"789\r\n" + LAST_CHUNK) == b"789"
    assert body.done and body.trailers == [] and body.excess == b""


def test_a_large_chunk_is_passed_on_without_a_copy() -> None:
    body = decoder()
    body.decode(b"100000\r\n")
    piece = bytes(64 * 1024)
    assert body.decode(piece) is piece


def test_a_chunk_that_ends_with_a_piece_is_followed_by_its_crlf() -> None:
    body = decoder()
    assert [body.decode(part) for part in (b"3\r\n", b"abc", b"\r", b"\n0", b"\r\n\r", b"\n")] == [
        b"",
        b"abc",
        b"",
        b"",
        b"",
        b"",
    ]
    assert body.done


def test_an_empty_piece_changes_nothing() -> None:
    body = decoder()
    assert (
        b"".join(body.decode(part) for part in (b"", b"3\r\na", b"", b"bc\r\n", b"", LAST_CHUNK + b"x", b"")) == b"abc"
    )
    assert body.done and body.excess == b"x"


@pytest.mark.parametrize("size", [1, 100, 16384])
def test_chunks_that_came_together_are_one_piece(size: int) -> None:
    """They go on as one chunk: what follows costs by the piece."""
    body = decoder()
    assert body.decode(encode_chunk(b"x" * size) * 50 + b"5\r\nab") == b"x" * size * 50 + b"ab"
    assert body.decode(b"cde\r\n" + encode_chunk(b"y") * 50 + LAST_CHUNK) == b"cde" + b"y" * 50
    assert body.done


def test_less_is_received_at_once_where_framing_is_much_of_it() -> None:
    """What a piece costs depends on its chunks and extensions more than on its data."""
    body = decoder()
    first = body.receive_bytes
    for _ in range(20):
        body.decode(b"1;a\r\nx\r\n" * (body.receive_bytes // 8 + 1))
    least = body.receive_bytes
    for _ in range(20):
        body.decode(encode_chunk(b"x") * (body.receive_bytes // 6 + 1))
    assert (body.receive_bytes > 100_000) is (compiled.chunks is not None), "in C they cost next to nothing"
    body = decoder()
    for _ in range(20):
        body.decode(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    more = body.receive_bytes
    body.decode(b"100000000\r\n")
    for _ in range(20):
        body.decode(bytes(body.receive_bytes))
    assert least < first < 100_000 and least < more < 100_000 < body.receive_bytes
    body.decode(b"")
    body.decode(b"x")
    assert body.receive_bytes > 100_000, "a little that came alone tells nothing"


def test_what_follows_the_body_is_kept_in_any_splitting() -> None:
    body = decoder()
    for part in (LAST_CHUNK, b"ne", b"xt"):
        assert body.decode(part) == b""
    assert body.excess == b"next"


def test_the_largest_size_is_a_number_of_bytes_to_wait_for() -> None:
    body = decoder()
    assert body.decode(b"f" * 15 + b"\r\nabc") == b"abc"
    assert not body.done


@pytest.mark.parametrize("begun", [b"x" * 20, b" ", b"\r\r", b"0" * 16, b"5 x", b"5\rx", b"5;\0", b"-1", b";a"])
def test_nonsense_is_refused_before_its_line_has_an_end(begun: bytes) -> None:
    with pytest.raises(TruncatedBody, match="not a chunk size"):
        decoder().decode(b"3\r\nabc\r\n" + begun)


@pytest.mark.parametrize("begun", [b"5", b"5\r", b"5 ", b"5 ;", b"5;a=", b'5;a="x y;', b"0" * 15, b"5;" + b"a" * 200])
def test_a_line_that_may_become_a_size_is_waited_for(begun: bytes) -> None:
    assert decoder().decode(b"3\r\nabc\r\n" + begun) == b"abc"


def test_an_extension_without_end_is_refused_at_the_line_limit() -> None:
    body = ChunkedDecoder(TruncatedBody, HeadLimits(line_bytes=100))
    body.decode(b"1;")
    with pytest.raises(TruncatedBody, match="longer than 101 bytes"):
        for _ in range(200):
            body.decode(b"a")


def test_trailers_without_end_are_refused_at_the_head_limit() -> None:
    body = ChunkedDecoder(TruncatedBody, HeadLimits(head_bytes=1000))
    body.decode(b"0\r\n")
    with pytest.raises(TruncatedBody, match="longer than 1000 bytes"):
        for _ in range(1000):
            body.decode(b"A: 1\r\n")


@pytest.mark.parametrize("seed", range(40))
def test_what_is_encoded_is_decoded_in_any_splitting(seed: int) -> None:
    rng = random.Random(seed)
    chunks = [rng.randbytes(rng.choice((1, 2, 15, 16, 17, 255, 256, 5000))) for _ in range(rng.randrange(6))]
    trailers = [(b"X-%d" % number, rng.choice((b"", b"v", b"a b"))) for number in range(rng.randrange(3))]
    coded = b"".join(map(encode_chunk, chunks)) + encode_last_chunk(trailers) + b"excess"
    expected = read_chunked(coded)
    assert (expected.data, expected.trailers, expected.excess, expected.done) == (
        b"".join(chunks),
        trailers,
        b"excess",
        True,
    )
    for _ in range(20):
        cuts = sorted(rng.randrange(len(coded) + 1) for _ in range(rng.randrange(8)))
        parts = [coded[start:end] for start, end in zip([0, *cuts], [*cuts, len(coded)], strict=True)]
        assert read_chunked_pieces(iter(parts)) == expected


def test_encoding() -> None:
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert encode_last_chunk([]) == b"0\r\n\r\n"
    assert encode_last_chunk([(b"A", b"1"), (b"B", b"")]) == b"0\r\nA: 1\r\nB: \r\n\r\n"


@pytest.mark.parametrize(
    "extension",
    [
        b";" + b"a" * 8000,
        b" " * 8000,
        b";a=" + b"b" * 8000 + b"\x01",
        b";a" * 4000 + b"!;",
        b';a="' + b"\\b" * 3900,
        b" ;" * 4000,
        b";a = " + b" " * 8000,
        b"; a " * 2000 + b"=",
    ],
    ids=range(8),
)
def test_no_extension_makes_the_grammar_slow(extension: bytes) -> None:
    # A pattern that backtracks in squares would need seconds for each of these lines, in cubes hours; the bound on the
    # whole run is faulthandler's. What is checked here is that they are decided.
    data = b"1" + extension + b"\r\na\r\n" + LAST_CHUNK
    valid = extension == b";" + b"a" * 8000
    if valid:
        assert read_chunked(data).data == b"a"
    else:
        with pytest.raises(TruncatedBody, match="not a chunk size"):
            read_chunked(data)
