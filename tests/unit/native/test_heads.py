"""The compiled module of heads says what the Python says, or leaves it to the Python."""
from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable

import pytest

from fuzz.mutation import mutate, seeds
from prefork_lb.errors import BadRequest, PreforkLBError
from prefork_lb.native.loader import NativeSection, native_heads
from prefork_lb.wire import compiled
from prefork_lb.wire.field_lines import Lines
from prefork_lb.wire.head import NOTABLE, VIA, FieldSection, HeadLimits, RequestHead, ResponseHead
from prefork_lb.wire.parse import parse_request, parse_response

Parser = Callable[[bytes, HeadLimits], RequestHead] | Callable[[bytes, HeadLimits], ResponseHead]
LIMITS = HeadLimits(line_bytes=200, fields=12)
GOOD_NAMES = [b"Host", b"host", b"X-A", b"x-a", b"Cookie", *(b"N%d" % number for number in range(40))]


HEADS = native_heads()
pytestmark = pytest.mark.skipif(HEADS is None, reason="prefork_lb.native.heads was not built: it takes a C compiler")


START = b"GET / HTTP/1.1\r\n"
STATUS = b"HTTP/1.1 200 OK\r\n"


def by_python(block: bytes, parse: Parser) -> RequestHead | ResponseHead | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "heads", None)
        try:
            return parse(block, LIMITS)
        except PreforkLBError:
            return None


def compare(block: bytes, parse: Parser = parse_request) -> bool:
    """Whether it is a good head; that both say so, or neither, and of all of it the same."""
    assert HEADS is not None
    expected = by_python(block, parse)
    found = (HEADS.read_request if parse is parse_request else HEADS.read_response)(block, LIMITS.line_bytes, LIMITS.fields)
    if found is None:
        # Of a response without a reason phrase the Python is asked.
        assert expected is None or (isinstance(expected, ResponseHead) and not expected.reason), block
        return expected is not None
    assert expected is not None, block
    section, python = found.section, expected.section
    head = parse(block, LIMITS)
    assert head == expected and type(head) is type(expected) and (type(head) is RequestHead) == (parse is parse_request), block
    assert head.is_persistent is expected.is_persistent and head.index is head.section and head.kept is None, block
    if isinstance(head, RequestHead):
        assert head.is_parsed
    else:
        assert head.framing is None
    assert (section.fields, section.notable, section.length) == (python.fields, python.notable, python.length), block
    assert section == python and dict(section.items()) == dict(python.items()) and list(section) == list(python), block
    for name in (*python, b"host", b"x-none"):
        assert section.get(name) == python.get(name) and (name in section) == (name in python), block
    return True


def test_both_read_the_same() -> None:
    rng = random.Random(7)
    parsers: list[tuple[str, Parser]] = [("request", parse_request), ("response", parse_response)]
    for side, parse in parsers:
        pool, good = seeds()[side], 0
        for number in range(5_000):
            block = mutate(rng.choice(pool), pool, rng) if number % 3 else rng.choice(pool)
            end = block.find(b"\r\n\r\n") + 4
            if end > 3:  # else it is no head yet, and nobody is asked
                good += compare(block[:end], parse)
        assert 500 < good < 4_500, side


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
    compare(START + block)
    compare(STATUS + block, parse_response)


@pytest.mark.parametrize("line", [
    b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.9", b"GET / HTTP/2.0", b"GET / HTTP/1.", b"GET / HTTP/1.10",
    b"GET / http/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET /", b"GET", b"",
    b"GET HTTP/1.1", b"/ HTTP/1.1", b"G\xc4T / HTTP/1.1", b"GET /\xc4 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\t HTTP/1.1",
    b"GET /\0 HTTP/1.1", b"G@T / HTTP/1.1", b"x-unknown-method /a?b#c HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\n",
    b"GET\r\n / HTTP/1.1", b"GET /%b HTTP/1.1" % (b"a" * 185), b"GET /%b HTTP/1.1" % (b"a" * 186),
    b"GET /%b HTTP/1.1" % (b"a" * 187),
])
def test_both_read_the_same_request_line(line: bytes) -> None:
    compare(line + b"\r\n\r\n")
    compare(line + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("line", [
    b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.7 599 x", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 099 x",
    b"HTTP/1.1 1000 x", b"HTTP/1.1 20 x", b"HTTP/1.1 2x0 x", b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200 \xc4\t~",
    b"HTTP/1.1 200 \x7f", b"HTTP/1.1 200 a\0b", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 a\nb", b"http/1.1 200 OK",
    b"HTTP/1.1\t200 OK", b"HTTP/1.1 200 OK\r", b"", b"HTTP/1.1", b"HTTP/1.1 200 " + b"a" * 300,
])
def test_both_read_the_same_status_line(line: bytes) -> None:
    compare(line + b"\r\n\r\n", parse_response)
    compare(line + b"\r\nServer: a\r\n\r\n", parse_response)


def test_a_head_ends_where_its_block_ends() -> None:
    assert HEADS is not None
    for read, block in ((HEADS.read_request, START), (HEADS.read_response, STATUS)):
        block += b"Host: a\r\n\r\n"
        assert read(block, 200, 9) is not None
        assert [read(block[:cut], 200, 9) for cut in range(len(block))] == [None] * len(block)


def test_every_byte_is_in_the_same_class() -> None:
    for byte in range(256):
        for field in (b"A%c: 1", b"A: 1%c1"):
            compare(START + field % byte + b"\r\n\r\n")
        for line in (b"G%cT / HTTP/1.1", b"GET /%c HTTP/1.1"):
            compare(line % byte + b"\r\n\r\n")
        compare(b"HTTP/1.1 200 O%cK\r\n\r\n" % byte, parse_response)


def section_of(*fields: tuple[bytes, bytes]) -> NativeSection:
    assert HEADS is not None
    found = HEADS.read_request(START + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n", 1000, 100)
    assert found is not None
    section: NativeSection = found.section
    return section


def test_names_share_their_objects_and_pythons_own_stay_as_they_are() -> None:
    first, second = (section_of((b"X-Some", b"1"), (b"A", b"2")).fields for _ in range(2))
    assert first[0][0] is second[0][0]
    assert (first[1][0], bytes([65]), bytes([97])) == (b"A", b"A", b"a"[:1])


def test_a_section_is_a_mapping_of_lists() -> None:
    section = section_of((b"X-A", b"1"), (b"Host", b"a"), (b"x-a", b"2"))
    assert section[b"x-a"] == section.get(b"x-a", ()) == [b"1", b"2"] and len(section) == 2
    assert section.get(b"none") is None and section.get(b"none", ()) == () and section.get("host") is None  # type: ignore[call-overload]
    assert b"X-A" not in section and "host" not in section
    with pytest.raises(KeyError, match="none"):
        section[b"none"]
    with pytest.raises(TypeError, match="get"):
        section.get()  # type: ignore[call-overload]
    assert section == {b"x-a": [b"1", b"2"], b"host": [b"a"]} and section != {} and section == FieldSection(section.fields)
    assert section != 1 and section != section_of((b"Host", b"a"))
    with pytest.raises(TypeError):
        hash(section)
    with pytest.raises(TypeError):
        type(section)()


@pytest.mark.parametrize("name", [*NOTABLE, b"host", b"x-content-length", b"content-lengt"])
def test_what_is_notable(name: bytes) -> None:
    for spelled in (name, name.title(), name.upper()):
        fields = [(b"Accept", b"*"), (spelled, b"1"), (b"Via", b"1.1 a")]
        expected = 1 << NOTABLE.index(name) if name in NOTABLE else 0
        assert section_of(*fields).notable == FieldSection(fields).notable == expected | VIA


@pytest.mark.parametrize(("values", "expected"), [
    ([], -1), ([b"0"], 0), ([b"007"], 7), ([b"9" * 18], 10 ** 18 - 1), ([b"9" * 19], -1), ([b"1", b"1"], -1), ([b"1"] * 3, -1),
    ([b""], -1), ([b"-1"], -1), ([b"+1"], -1), ([b"1,1"], -1), ([b"1 1"], -1), ([b"\xb2"], -1), ([b"x", b"1"], -1),
    ([b"0x1"], -1),
])
def test_the_one_length(values: list[bytes], expected: int) -> None:
    fields = [(b"Content-Length", value) for value in values]
    assert section_of(*fields).length == FieldSection(fields).length == expected


def test_values_outlive_their_section() -> None:
    values = section_of((b"X-A", b"1" * 100))[b"x-a"]
    gc.collect()
    assert values == [b"1" * 100]


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
                    found.append(lines.join(FieldSection(fields)))
                except BadRequest as exc:
                    found.append(str(exc))
        assert found[0] == found[1], fields
        accepted += isinstance(found[0], bytes)
    assert 300 < accepted < 2900


def test_a_section_joins_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    names, values = [*GOOD_NAMES, b"L" * 50, b"Connection"], [b"", b"1", b"a b\tc", b"\xff", b"close", b"X-A, n5"]
    for _ in range(1000):
        fields = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(12))]
        spelled = b"".join(name + rng.choice([b":", b": ", b":\t "]) + value + rng.choice([b"", b" "]) + b"\r\n"
                           for name, value in fields)
        lines = Lines(lambda name: name not in (b"cookie", b"n7"), BadRequest)
        joined = lines.join(parse_request(START + spelled + b"\r\n", HeadLimits()).section, b"<", b">")
        monkeypatch.setattr(compiled, "heads", None)
        python = Lines(lambda name: name not in (b"cookie", b"n7"), BadRequest)
        assert joined == python.join(FieldSection(fields), b"<", b">"), fields
        monkeypatch.undo()


@pytest.mark.parametrize("either_spelling", [False, True])
def test_both_leave_the_same_out(either_spelling: bool) -> None:
    rng = random.Random(11)
    names = [b"X-A", b"x_a", b"X_a", b"x-a", b"Content-Length", b"Via", b"content_length", b"L" * 50, b"l_" * 30, b"Connection"]
    changed = 0
    for _ in range(1000):
        fields = [(rng.choice(names), b"1") for _ in range(rng.randrange(8))]
        out = frozenset(rng.sample([b"x-a", b"x_a", b"content-length", b"via", b"l" * 50, b"l-" * 30, b"none"], rng.randrange(4)))
        section, python = section_of(*fields), FieldSection(fields)
        left, expected = section.without(out, either_spelling), python.without(out, either_spelling)
        assert left.fields == expected.fields and (left is section) == (expected is python), (fields, out)
        assert (left.notable, left.length, left == expected) == (expected.notable, expected.length, True), (fields, out)
        assert section.fields == fields
        changed += left is not section
    assert 200 < changed < 900


def test_wrong_arguments_of_without_and_plain_path() -> None:
    assert HEADS is not None
    section = section_of((b"A", b"1"))
    for arguments in ((), (frozenset(),), ({b"a"}, True), (None, True), (frozenset(), 1), (frozenset(), True, 1)):
        with pytest.raises(TypeError):
            section.without(*arguments)  # type: ignore[arg-type]
    for target in ("/", None, bytearray(b"/")):
        with pytest.raises(TypeError):
            HEADS.plain_path(target)  # type: ignore[arg-type]


def test_what_is_known_of_names_has_a_bound() -> None:
    lines = Lines(lambda name: not name.endswith(b"7"), BadRequest)
    for number in range(20_000):
        assert bool(lines.join_fields([(b"N%d" % number, b"")])) == (number % 10 != 7)
    assert lines._held < 600_000


def test_long_names_are_not_kept() -> None:
    lines = Lines(lambda name: True, BadRequest)
    assert lines.join_fields([(b"N" * 8000, b"1"), (b"A", b"2")]) == b"N" * 8000 + b": 1\r\nA: 2\r\n"
    assert list(lines._known) == [b"A"]


@pytest.mark.parametrize("arguments", [
    (), (b"", 1), ("GET / HTTP/1.1\r\n\r\n", 1, 1), (b"\r\n", "0", 1), (b"\r\n", 1.5, 1), (b"\r\n", 1, None),
])
def test_wrong_arguments_of_what_reads(arguments: tuple[object, ...]) -> None:
    assert HEADS is not None
    for read in (HEADS.read_request, HEADS.read_response):
        with pytest.raises(TypeError):
            read(*arguments)  # type: ignore[arg-type]


def test_wrong_arguments_of_join_fields() -> None:
    assert HEADS is not None
    for arguments in ((), ([],), ((), {}), ([], [])):
        with pytest.raises(TypeError):
            HEADS.join_fields(*arguments)  # type: ignore[arg-type]
    for fields in ([b"no pair"], [(b"A",)], [(b"A", "1")], [("A", b"1")], [(b"A", b"1", b"2")]):
        assert HEADS.join_fields(fields, {b"A": True}) is None  # type: ignore[arg-type]
    for wrong in ([], {b"A"}, None):
        with pytest.raises(TypeError):
            section_of((b"A", b"1")).join(wrong, b"", b"")  # type: ignore[arg-type]
    for pieces in ((), (b"",), ("", b""), (b"", None)):
        with pytest.raises(TypeError):
            section_of((b"A", b"1")).join({}, *pieces)  # type: ignore[arg-type]
    assert section_of((b"A", b"1")).join({}, b"", b"") is None
    assert section_of((b"A", b"1"), (b"B", b"2")).join({b"A": True, b"B": False}, b"x", b"\r\n") == b"xA: 1\r\n\r\n"


def test_the_classes_of_heads_are_checked() -> None:
    assert HEADS is not None
    for arguments in ((), (RequestHead,), (RequestHead, None), (object, ResponseHead), (RequestHead, RequestHead)):
        with pytest.raises((TypeError, AttributeError)):
            HEADS.use(*arguments)  # type: ignore[arg-type]
    HEADS.use(RequestHead, ResponseHead)


def test_nothing_is_left_behind() -> None:
    assert HEADS is not None
    fields, bad = b"Host: a\r\nX-Left: 1\r\nX-Left: 2\r\nCookie: c\r\n\r\n", START + b"Host: a\r\nCookie: c\r\nBad\r\n\r\n"

    def work() -> None:
        assert HEADS is not None
        for _ in range(2000):
            found = HEADS.read_request(START + fields, 100, 9)
            assert found is not None and HEADS.read_request(bad, 100, 9) is None and HEADS.read_response(STATUS + fields, 100, 9)
            section, travels = found.section, {b"Host": True, b"X-Left": False, b"Cookie": True}
            section.without(frozenset((b"cookie", b"x-left")), True).without(frozenset((b"host",)), False)
            section.join(travels, b"a", b"b"), section.join({}, b"", b""), HEADS.join_fields(section.fields, travels)
            found.kept = dict(section.items()), list(section), section.get(b"x-left"), section == section, len(section)

    work()
    before = sys.getallocatedblocks()
    work()
    assert sys.getallocatedblocks() - before < 200
