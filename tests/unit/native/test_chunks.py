"""The compiled module of the chunked coding joins what the Python joins, and stops where it stops."""
from __future__ import annotations

import random

import pytest

from fuzz.mutation import mutate
from prefork_lb.native.loader import native_chunks
from prefork_lb.wire.chunked import LAST_CHUNK, encode_chunk, join_chunks

CHUNKS = native_chunks()
pytestmark = pytest.mark.skipif(CHUNKS is None, reason="prefork_lb.native.chunks was not built: it takes a C compiler")


def compare(data: bytes, position: int = 0) -> tuple[bytes, int]:
    assert CHUNKS is not None
    found = CHUNKS.join_chunks(data, position)
    assert found == join_chunks(data, position), (data, position)
    return found


@pytest.mark.parametrize(("data", "content", "end"), [
    (b"", b"", 0),
    (b"1\r\na\r\n", b"a", 6),
    (b"1\r\na\r\n2\r\nbc\r\n", b"abc", 13),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n", b"0123456789" * 2, 30),
    (b"0001\r\na\r\n", b"a", 9),
    (b"000000000000001\r\na\r\n", b"a", 20),
    (b"0000000000000001\r\na\r\n", b"", 0),  # a digit too many
    (b"1\r\na\r\n" + LAST_CHUNK, b"a", 6),
    (b"1\r\na\r\n000\r\n\r\n", b"a", 6),
    (b"1\r\na\r\n1;x\r\nb\r\n", b"a", 6),
    (b"1\r\na\r\n1 \r\nb\r\n", b"a", 6),
    (b"1\r\na\r\n2\r\nb\r\n", b"a", 6),
    (b"1\r\na\r\n1\r\nbc\r\n", b"a", 6),
    (b"1\r\na\r\n1\r\nb\r", b"a", 6),
    (b"1\r\na\r\n1\r\nb", b"a", 6),
    (b"1\r\na\r\n1\r\n", b"a", 6),
    (b"1\r\na\r\n1\r", b"a", 6),
    (b"1\r\na\r\n1", b"a", 6),
    (b"1\na\n", b"", 0),
    (b"\r\n1\r\na\r\n", b"", 0),
    (b"g\r\na\r\n", b"", 0),
    (b"+1\r\na\r\n", b"", 0),
    (b"1_0\r\n" + b"a" * 16 + b"\r\n", b"", 0),
    (b"0x1\r\na\r\n", b"", 0),
    (b"f" * 15 + b"\r\na\r\n", b"", 0),
    (b"7fffffffffffffff\r\na\r\n", b"", 0),
    (b"2\r\n\r\n\r\n", b"\r\n", 7),
])
def test_what_is_joined_and_where_it_stops(data: bytes, content: bytes, end: int) -> None:
    assert compare(data) == (content, end)
    assert compare(b"xyz" + data, 3) == (content, end + 3)


@pytest.mark.parametrize("seed", range(20))
def test_both_join_the_same(seed: int) -> None:
    rng = random.Random(seed)
    chunks = [encode_chunk(rng.randbytes(rng.choice((1, 2, 15, 16, 300)))) for _ in range(100)]
    pool = [b"".join(rng.choices(chunks, k=rng.randrange(1, 9))) + LAST_CHUNK for _ in range(20)]
    joined = 0
    for number in range(1000):
        data = mutate(rng.choice(pool), pool, rng) if number % 3 else rng.choice(pool)
        joined += bool(compare(data)[0])
        compare(data[:rng.randrange(len(data) + 1)], 0)
        compare(data, rng.randrange(len(data) + 1))
    assert joined > 300


def test_arguments_that_are_none() -> None:
    assert CHUNKS is not None
    for position in (-1, 4, 1 << 62, -(1 << 62)):
        with pytest.raises(ValueError, match="outside"):
            CHUNKS.join_chunks(b"1\r\n", position)
    with pytest.raises(OverflowError):
        CHUNKS.join_chunks(b"", 1 << 70)
    with pytest.raises(TypeError):
        CHUNKS.join_chunks("1", 0)  # type: ignore[arg-type]
