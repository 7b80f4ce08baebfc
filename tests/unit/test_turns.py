"""Tests that measure have the machine for themselves, and do not wait for ever until they have it."""
from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.turns import Turns
from tests.support.waiting import wait_until


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    lock, line = tmp_path / "lock", tmp_path / "line"
    lock.mkdir()
    line.mkdir()
    return lock, line


def is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def running(turns: Turns, alone: bool, order: list[str]) -> Iterator[threading.Thread]:
    """A thread that takes one turn, as another process would: it has opened the folders itself."""
    def take() -> None:
        turns.take(alone)
        order.append("alone" if alone else "beside others")
        turns.give_back()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_tests_run_side_by_side(folders: tuple[Path, Path]) -> None:
    order: list[str] = []
    with closing(Turns(*folders)) as first, closing(Turns(*folders)) as second:
        first.take(alone=False)
        with running(second, False, order) as thread:
            thread.join(10)
        assert order == ["beside others"]


def test_who_comes_after_a_test_that_waits_to_be_alone_stands_behind_it(folders: tuple[Path, Path]) -> None:
    order: list[str] = []
    with closing(Turns(*folders)) as first, closing(Turns(*folders)) as second, closing(Turns(*folders)) as third:
        first.take(alone=False)
        with running(second, True, order):
            wait_until(lambda: is_held(folders[1]), "the second one stands in line")
            with running(third, False, order) as late:
                late.join(0.2)  # long enough for one that does not stand in line to be through
                first.give_back()
    assert order == ["alone", "beside others"]


def test_a_turn_alone_is_kept_though_others_stand_in_line(folders: tuple[Path, Path]) -> None:
    order: list[str] = []
    with closing(Turns(*folders)) as first, closing(Turns(*folders)) as second:
        first.take(alone=True)
        with running(second, False, order):
            wait_until(lambda: is_held(folders[1]), "the second one stands in line")
            first.take(alone=True)
            order.append("alone")
            first.give_back()
    assert order == ["alone", "beside others"]
