"""Results that are remembered, within bounds."""
from __future__ import annotations

import threading

import pytest

from prefork_lb.wire.memo import Memo

EACH = 10  # bytes, whatever the key


def ten(key: object) -> int:
    return EACH


class Upper:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def __call__(self, key: bytes) -> bytes:
        self.calls.append(key)
        if key == b"bad":
            raise ValueError(key)
        return key.upper()


def test_a_key_that_comes_again_is_worked_out_twice_and_no_more() -> None:
    function = Upper()
    memo = Memo(function, ten)
    assert [memo(b"a"), memo(b"b"), memo(b"a")] == [b"A", b"B", b"A"]
    assert function.calls == [b"a", b"b", b"a"]
    assert [memo(b"a"), memo(b"a")] == [b"A", b"A"]
    assert len(function.calls) == 3


def test_keys_that_come_once_push_nobody_out() -> None:
    function = Upper()
    memo = Memo(function, ten, most_bytes=4 * EACH)
    memo(b"again")
    memo(b"again")
    function.calls.clear()
    for number in range(5000):
        memo(b"%d" % number)
        memo(b"again")
    assert b"again" not in function.calls and len(memo._known) <= 4


def test_keys_that_repeat_are_found_soon_after_many_that_did_not() -> None:
    function = Upper()
    memo = Memo(function, ten)
    for number in range(5000):
        memo(b"%d" % number)
    function.calls.clear()
    for _ in range(100):
        assert memo(b"again") == b"AGAIN"
    assert 2 <= len(function.calls) <= 24
    function.calls.clear()
    assert [memo(b"again"), memo(b"again")] == [b"AGAIN", b"AGAIN"] and not function.calls


def test_what_is_kept_has_a_bound_in_bytes() -> None:
    memo = Memo(bytes.upper, len, most_bytes=1000, largest=200)
    for number in range(3000):
        key = b"%d" % number * (number % 40)
        memo(key)
        memo(key)
        assert sum(map(len, memo._known)) <= 1000
    assert memo._known, "it keeps what fits"


def test_an_error_is_not_remembered() -> None:
    function = Upper()
    memo = Memo(function, ten)
    for _ in range(2):
        with pytest.raises(ValueError):
            memo(b"bad")
    assert function.calls == [b"bad", b"bad"]


def test_a_result_that_is_none_is_remembered_too() -> None:
    calls: list[bytes] = []
    memo = Memo(calls.append, ten)
    assert [memo(b"a"), memo(b"a"), memo(b"a")] == [None, None, None]
    assert calls == [b"a", b"a"]


def test_large_keys_are_worked_out_every_time() -> None:
    function = Upper()
    memo = Memo(function, len, largest=3)
    for key in (b"abc", b"abc", b"abcd", b"abcd", b"abc", b"abcd"):
        assert memo(key) == key.upper()
    assert function.calls == [b"abc", b"abc", b"abcd", b"abcd", b"abcd"]


def test_when_it_is_full_it_starts_anew() -> None:
    function = Upper()
    memo = Memo(function, ten, most_bytes=2 * EACH)
    for key in (b"a", b"a", b"b", b"b", b"a"):
        assert memo(key) == key.upper()
    assert function.calls == [b"a", b"a", b"b", b"b"]
    for key in (b"c", b"c", b"c", b"a", b"a"):
        assert memo(key) == key.upper()
    assert function.calls[4:] == [b"c", b"c", b"a"], "a's second coming is known"


def test_threads_that_crowd_one_another_out_get_their_own_results() -> None:
    memo = Memo(bytes.upper, ten, most_bytes=2 * EACH)
    wrong: list[bytes] = []

    def ask(letter: bytes) -> None:
        for number in range(3000):
            key = letter * (1 + number % 3)
            if memo(key) != key.upper():
                wrong.append(key)

    threads = [threading.Thread(target=ask, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_result_that_is_forgotten_between_look_and_take_is_worked_out_again() -> None:
    function = Upper()
    memo = Memo(function, ten)

    class Key(bytes):
        """Equal to b"a" at the first question, and to nothing any more when it is fetched."""

        asked = 0

        def __eq__(self, other: object) -> bool:
            self.asked += 1
            return self.asked == 1 and bytes(self) == other

        __hash__ = bytes.__hash__

    memo(b"a")
    memo(b"a")
    assert memo(Key(b"a")) == b"A"
    assert len(function.calls) == 3
