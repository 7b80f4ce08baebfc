"""The compiled module of heads says what the Python says, or leaves it to the Python."""
from __future__ import annotations

import random
import sys

import pytest

from fuzz.mutation import mutate, seeds
from prefork_lb.errors import BadRequest, HeadTooLarge, PreforkLBError
from prefork_lb.native.loader import native_heads
from prefork_lb.wire import compiled
from prefork_lb.wire.head import Fields, HeadLimits, index_fields, parse_fields
from prefork_lb.wire.lines import Lines

LIMITS = HeadLimits(line_bytes=200, fields=12)
GOOD_NAMES = [b"Host", b"host", b"X-A", b"x-a", b"Cookie", *(b"N%d" % number for number in range(40))]


HEADS = native_heads()
pytestmark = pytest.mark.skipif(HEADS is None, reason="prefork_lb.native.heads was not built: it takes a C compiler")


def by_python(block: bytes, start: int) -> Fields | None:
    try:
        return parse_fields(block, start, LIMITS, HeadTooLarge, BadRequest)
    except PreforkLBError:
        return None


def compare(block: bytes, start: int) -> bool:
    """Whether it is a good section; that both say so, or neither."""
    assert HEADS is not None
    expected = by_python(block, start)
    found = HEADS.read_fields(block, start, LIMITS.line_bytes, LIMITS.fields)
    assert (found is None) == (expected is None), block
    if found is not None and expected is not None:
        assert found == (expected, index_fields(expected)), block
    return expected is not None


def test_both_read_the_same() -> None:
    rng = random.Random(7)
    pools = [*seeds()["request"], *seeds()["response"]]
    good = 0
    for number in range(20_000):
        block = mutate(rng.choice(pools), pools, rng) if number % 3 else rng.choice(pools)
        end = block.find(b"\r\n\r\n") + 4
        if end > 3:  # else it is no head yet, and nobody is asked
            good += compare(block[:end], block.find(b"\r\n") + 2)
    assert 2_000 < good < 18_000


@pytest.mark.parametrize("block", [
    b"\r\n", b"\n\r\n", b"A: 1\r\n", b"A: 1\r\n\r\n", b"A:1\r\nB:\t2 \t\r\n\r\n", b"A:\r\n\r\n", b": 1\r\n\r\n",
    b"abc\r\n", b"abc\r\n\r\n", b"A : 1\r\n\r\n", b"A: 1\n\r\n", b"A: 1\r\n\r\nB: 2\r\n\r\n",
    b"A: \xff\x80~ \r\n\r\n", b"A: \x7f\r\n\r\n", b"A: \0\r\n\r\n", b"A\0: 1\r\n\r\n", b"A: 1\rB: 2\r\n\r\n",
    b"A: 1\r\n B\r\n\r\n", b"\xc4: 1\r\n\r\n", b"a: 1\r\nA: 2\r\na: 3\r\n\r\n", b"N" * 60 + b": 1\r\n\r\n",
    b"A: " + b"1" * 197 + b"\r\n\r\n", b"A: " + b"1" * 198 + b"\r\n\r\n", b"A:" + b" " * 300 + b"1\r\n\r\n",
    b"A: 1\r\n" * 12 + b"\r\n", b"A: 1\r\n" * 13 + b"\r\n",
    b"".join(b"%c: 1\r\n" % c for c in b"ABCDEFabcdef") + b"\r\n",
    *(b"A:%b1%b\r\n\r\n" % (b" " * before, b"\t" * behind)
      for before, behind in ((197, 0), (198, 0), (0, 197), (0, 198), (99, 98), (99, 99))),
])
def test_both_read_the_same_at_the_edges(block: bytes) -> None:
    compare(block, 0)
    compare(b"skipped" + block, 7)


def test_every_byte_is_in_the_same_class() -> None:
    for byte in range(256):
        compare(b"A%c: 1\r\n\r\n" % byte, 0)
        compare(b"A: 1%c1\r\n\r\n" % byte, 0)


def test_names_share_their_objects_and_pythons_own_stay_as_they_are() -> None:
    assert HEADS is not None
    first, second = (HEADS.read_fields(b"X-Some: 1\r\nA: 2\r\n\r\n", 0, 100, 9) for _ in range(2))
    assert first is not None and second is not None and first[0][0][0] is second[0][0][0]
    assert (first[0][1][0], bytes([65]), bytes([97])) == (b"A", b"A", b"a"[:1])


def test_both_join_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(8)
    names = [*GOOD_NAMES, b"Bad name", b"", b"A:b"]
    values = [b"", b"1", b"a b\tc", b"\xff", b"bad\r\nX: 1", b"bad\0", b"x" * 500]
    accepted = 0
    for _ in range(3000):
        fields = [(rng.choice(names if rng.random() < 0.05 else GOOD_NAMES),
                   rng.choice(values if rng.random() < 0.05 else values[:4])) for _ in range(rng.randrange(8))]
        found: list[bytes | str] = []
        for heads in (HEADS, None):
            with monkeypatch.context() as patch:
                patch.setattr(compiled, "heads", heads)
                try:
                    lines = Lines(lambda name: name not in (b"cookie", b"n7"), BadRequest)
                    found.append(lines.join(fields, index_fields(fields)))
                except BadRequest as exc:
                    found.append(str(exc))
        assert found[0] == found[1], fields
        accepted += isinstance(found[0], bytes)
    assert 300 < accepted < 2900


def test_what_is_known_of_names_has_a_bound() -> None:
    lines = Lines(lambda name: not name.endswith(b"7"), BadRequest)
    for number in range(20_000):
        assert bool(lines.join([(b"N%d" % number, b"")], {})) == (number % 10 != 7)
    assert lines._held < 600_000


def test_long_names_are_not_kept() -> None:
    lines = Lines(lambda name: True, BadRequest)
    assert lines.join([(b"N" * 8000, b"1"), (b"A", b"2")], {}) == b"N" * 8000 + b": 1\r\nA: 2\r\n"
    assert list(lines._known) == [b"A"]


@pytest.mark.parametrize("arguments", [(), (b"", 0, 1), ("A: 1\r\n\r\n", 0, 1, 1), (b"\r\n", "0", 1, 1), (b"\r\n", 0, 1.5, 1)])
def test_wrong_arguments_of_read_fields(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        HEADS.read_fields(*arguments)  # type: ignore[union-attr, arg-type]


def test_wrong_arguments_of_join_fields() -> None:
    assert HEADS is not None
    for arguments in ((), ([],), ((), {}), ([], [])):
        with pytest.raises(TypeError):
            HEADS.join_fields(*arguments)  # type: ignore[arg-type]
    for fields in ([b"no pair"], [(b"A",)], [(b"A", "1")], [("A", b"1")], [(b"A", b"1", b"2")]):
        assert HEADS.join_fields(fields, {b"A": True}) is None  # type: ignore[arg-type]
    assert HEADS.read_fields(b"A: 1\r\n\r\n", -1, 9, 9) is HEADS.read_fields(b"\r\n", 1, 9, 9) is None


def test_nothing_is_left_behind() -> None:
    assert HEADS is not None
    block, bad = b"Host: a\r\nX-Left: 1\r\nX-Left: 2\r\nCookie: c\r\n\r\n", b"Host: a\r\nCookie: c\r\nBad\r\n\r\n"

    def work() -> None:
        assert HEADS is not None
        for _ in range(2000):
            found = HEADS.read_fields(block, 0, 100, 9)
            assert found is not None and HEADS.read_fields(bad, 0, 100, 9) is None
            HEADS.join_fields(found[0], {b"Host": True, b"X-Left": False, b"Cookie": True})

    work()
    before = sys.getallocatedblocks()
    work()
    assert sys.getallocatedblocks() - before < 200
