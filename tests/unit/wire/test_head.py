"""Heads: where they end, what they hold, how large they may be."""
from __future__ import annotations

import gc
import tracemalloc

import pytest

from prefork_lb.errors import BadRequest, BadResponse, HeadTooLarge, TruncatedBody
from prefork_lb.wire.field_lines import Lines
from prefork_lb.wire.head import Fields, FieldSection, HeadLimits, RequestHead, list_members
from prefork_lb.wire.parse import head_end, kept_bytes, parse_fields, parse_request, parse_response

HEAD = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


def test_a_head_ends_behind_its_blank_line() -> None:
    assert head_end(HEAD + b"body\r\n\r\n", BadRequest) == len(HEAD)


@pytest.mark.parametrize("seen", range(len(HEAD)))
def test_the_end_is_found_wherever_the_last_look_stopped(seen: int) -> None:
    assert head_end(HEAD, BadRequest, seen) == len(HEAD)


def test_the_end_is_found_in_a_bytearray_too() -> None:
    assert head_end(bytearray(HEAD), BadRequest) == len(HEAD)


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"G", HEAD[:-1], HEAD[:-2], HEAD[:-3], b"\r\n\r"])
def test_an_unfinished_head_has_no_end_yet(data: bytes) -> None:
    assert head_end(data, BadRequest) == -1


@pytest.mark.parametrize("data", [b"\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n", b"a\r\n\n"])
def test_lf_alone_is_refused_before_the_head_ends(data: bytes) -> None:
    with pytest.raises(BadResponse, match="LF alone"):
        head_end(data, BadResponse)


def test_lf_alone_is_seen_when_cr_and_lf_are_looked_at_apart() -> None:
    assert head_end(b"a\r\n", BadRequest, 2) == -1
    with pytest.raises(BadRequest, match="LF alone"):
        head_end(b"ab\n", BadRequest, 2)


def test_fields_are_indexed_by_lower_case_name_in_order() -> None:
    head = RequestHead(b"GET", b"/", 1, [(b"X-A", b"1"), (b"Host", b"h"), (b"x-a", b"2")])
    assert head.index == {b"x-a": [b"1", b"2"], b"host": [b"h"]}
    assert FieldSection([]) == {}


def test_heads_with_equal_contents_are_equal() -> None:
    assert parse_request(HEAD, HeadLimits()) == parse_request(HEAD, HeadLimits())
    assert parse_request(HEAD, HeadLimits()) != parse_request(HEAD.replace(b"/ ", b"/x "), HeadLimits())


def test_a_head_without_fields_is_whole() -> None:
    assert parse_response(b"HTTP/1.1 200 OK\r\n\r\n", HeadLimits()).fields == []


def test_trailer_fields_are_parsed_from_their_own_start() -> None:
    assert parse_fields(b"skip\r\nA: 1\r\n\r\n", 6, HeadLimits(), TruncatedBody, TruncatedBody) == [(b"A", b"1")]


def test_limits_and_grammar_raise_the_errors_given() -> None:
    with pytest.raises(HeadTooLarge, match="at most 3 are allowed"):
        parse_fields(b"A: 1\r\n\r\n", 0, HeadLimits(head_bytes=3), HeadTooLarge, TruncatedBody)
    with pytest.raises(TruncatedBody, match="not a field line"):
        parse_fields(b"A\r\n\r\n", 0, HeadLimits(), HeadTooLarge, TruncatedBody)


def test_a_long_field_among_short_ones_is_named() -> None:
    block = HEAD[:-2] + b"X-Short: 1\r\nX-Long: " + b"1" * 40 + b"\r\n\r\n"
    with pytest.raises(HeadTooLarge, match="the line of the field X-Long has 48 bytes, at most 30 are allowed"):
        parse_request(block, HeadLimits(line_bytes=30))


@pytest.mark.parametrize("blanks", [(40, 0), (0, 40), (20, 20), (39, 0), (0, 39)])
def test_blanks_count_wherever_they_stand_in_a_line(blanks: tuple[int, int]) -> None:
    before, behind = blanks
    block = HEAD[:-2] + b"X-Padded:" + b" " * before + b"1" + b"\t" * behind + b"\r\n\r\n"
    limits = HeadLimits(line_bytes=len(b"X-Padded:1") + 39)
    if before + behind > 39:
        with pytest.raises(HeadTooLarge, match="the line of the field X-Padded has 50 bytes, at most 49 are allowed"):
            parse_request(block, limits)
    else:
        assert parse_request(block, limits).index[b"x-padded"] == [b"1"]


def test_many_short_fields_are_no_long_line() -> None:
    block = HEAD[:-2] + b"X-Short: 1\r\n" * 10 + b"\r\n"
    assert len(parse_request(block, HeadLimits(line_bytes=30)).fields) == 11


def test_repetitions_in_a_list_count_once() -> None:
    assert list_members([b"a,b, A" * 2, b"b ,c"]) == [b"a", b"b", b"aa", b"c"]


@pytest.mark.parametrize(("fields", "minor", "expected"), [
    ([], 1, True), ([], 0, False),
    ([(b"Connection", b"keep-alive")], 1, True), ([(b"Connection", b"keep-alive")], 0, True),
    ([(b"Connection", b"Keep-Alive, x"), (b"connection", b"CLOSE")], 1, False), ([(b"Connection", b"x")], 0, False),
])
def test_whether_a_client_wants_to_use_its_connection_again(fields: Fields, minor: int, expected: bool) -> None:
    assert RequestHead(b"GET", b"/", minor, fields).is_persistent is expected


def test_list_members_are_lower_case_without_blanks_and_empty_ones() -> None:
    assert list_members([b" Close , ,x-A,", b"\tTE"]) == [b"close", b"x-a", b"te"]


def test_a_message_shows_no_more_than_the_beginning_of_a_line() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_request(b"x" * 5000 + b"\r\n\r\n", HeadLimits())
    assert len(str(caught.value)) < 150


def test_a_control_byte_far_into_a_line_is_named_as_such() -> None:
    with pytest.raises(BadRequest, match="control byte"):
        parse_request(HEAD[:-2] + b"X: " + b"a" * 200 + b"\0\r\n\r\n", HeadLimits())


@pytest.mark.parametrize(("fields", "name_bytes", "value_bytes"), [
    (0, 0, 0), (12, 12, 40), (90, 8, 0), (90, 14, 10), (4, 400, 100), (1, 10, 1900), (190, 8, 0),
])
def test_what_a_remembered_head_takes_is_no_more_than_it_is_counted_for(fields: int, name_bytes: int, value_bytes: int) -> None:
    lines = Lines(lambda name: True, BadRequest)

    def block(number: int) -> bytes:
        return b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, b"".join(
            b"%b: %b\r\n" % ((b"%d-%d-" % (number, field)).ljust(name_bytes, b"n"), b"v" * value_bytes)
            for field in range(fields)))

    def remembered(number: int) -> object:
        made = block(number)
        head = parse_request(made, HeadLimits(fields=1000))
        head.kept = [0, 0, 0, b"%b%b" % (made, b"f" * 300), lines.join(head.section)]
        return made, head

    remembered(0)
    gc.collect()
    tracemalloc.start()
    kept = [remembered(number) for number in range(100, 150)]
    taken = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert taken <= kept_bytes(block(100)) <= 6 * taken
