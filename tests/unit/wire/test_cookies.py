"""Cookies found by name in the Cookie fields, and fields without one cookie."""
from __future__ import annotations

import random
import time

import pytest

from prefork_lb.wire.cookies import cookie, cookies, without_cookie


@pytest.mark.parametrize(("values", "found"), [
    ([], None),
    ([b""], None),
    ([b"id=7"], b"7"),
    ([b"a=1; id=7; b=2"], b"7"),
    ([b"a=1;id=7;b=2"], b"7"),
    ([b"a=1;  id = 7 ;b=2"], b"7"),
    ([b"a=1;\tid=7"], b"7"),
    ([b"a=1", b"b=2; id=7"], b"7"),  # several fields
    ([b"id=7; id=8"], b"7"),  # RFC 6265 5.4: the more specific path comes first
    ([b"id="], b""),
    ([b"id=a=b=="], b"a=b=="),
    ([b'id="a b"'], b'"a b"'),  # quotes belong to the value
    ([b"id"], None),
    ([b"ID=7"], None),
    ([b"xid=7; idx=8; x=id"], None),
    ([b"x=id=7"], None),
    ([b"id=\xff\x80"], b"\xff\x80"),
    ([b";;; =; =x;id=7;"], b"7"),
])
def test_a_cookie_is_found_by_its_name(values: list[bytes], found: bytes | None) -> None:
    assert cookie(values, b"id") == found


@pytest.mark.parametrize(("values", "left"), [
    ([], []),
    ([b"id=7"], []),
    ([b"id=7; "], []),
    ([b"a=1; b=2"], [b"a=1; b=2"]),
    ([b"a=1;  b=id;c"], [b"a=1;  b=id;c"]),  # what has no such cookie stays byte for byte
    ([b"id=7; a=1"], [b"a=1"]),
    ([b"a=1; id=7"], [b"a=1"]),
    ([b"a=1; id=7; b=2"], [b"a=1; b=2"]),
    ([b"a=1;id = 7;b=2"], [b"a=1;b=2"]),
    ([b"id=7; a=1; id=8"], [b"a=1"]),
    ([b"id=7", b"a=1", b"id=8; b=2"], [b"a=1", b"b=2"]),
    ([b"xid=7; idx=8; x=id=9; id"], [b"xid=7; idx=8; x=id=9; id"]),
])
def test_fields_without_a_cookie(values: list[bytes], left: list[bytes]) -> None:
    assert without_cookie(values, b"id") == left


def test_whatever_comes_the_cookie_is_gone_afterwards_and_the_others_are_as_they_were() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        values = [bytes(rng.choices(b"id=;; \t\"a", k=rng.randrange(24))) for _ in range(rng.randrange(4))]
        left = without_cookie(values, b"id")
        assert cookie(left, b"id") is None
        for other in (b"a", b"di", b"iid", b"da"):
            assert cookie(left, other) == cookie(values, other), (values, other)


@pytest.mark.parametrize("piece", [b"id;", b";", b"id", b"id=", b" ", b"=", b"id = ;", b"\"id="])
def test_the_time_grows_with_the_length_alone(piece: bytes) -> None:
    """A quadratic search would take minutes for these 4 MB."""
    value = piece * (4_000_000 // len(piece))
    begin = time.process_time()
    cookie([value], b"id!")
    cookie([value], b"id")
    without_cookie([value], b"id")
    assert time.process_time() - begin < 20


def test_all_values_of_a_name_are_found_in_order() -> None:
    assert list(cookies([b"a=1; b=2; a=3", b"c=4", b" a = 5 "], b"a")) == [b"1", b"3", b"5"]
    assert list(cookies([b"aa=1; a"], b"a")) == list(cookies([], b"a")) == []
