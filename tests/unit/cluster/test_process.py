"""The loop of the process that shares."""
from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from prefork_lb.cluster.process import share
from prefork_lb.cluster.sharing import Sharing
from prefork_lb.cluster.store import Received, StoreError


class Exchanges:
    """In the place of Sharing: each exchange ends as the next word says, "" in good order."""

    def __init__(self, words: Iterator[str]) -> None:
        self._words = words

    def exchange(self) -> Received:
        if word := next(self._words):
            raise StoreError(word)
        return Received(0, [])

    def leave(self) -> None:
        """Nobody needs to be told."""


class After(threading.Event):
    """Set after so many waits, none of which takes any time."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self._left = waits

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        return self._left < 0


def told(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """The ends of the lines that are logged."""
    share(cast(Sharing, Exchanges(iter(words))), 0.05, After(len(words)))
    return [record.getMessage().rpartition(" ")[2] for record in caplog.records]


def test_each_reason_is_told_once_while_the_store_is_away(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, "", *["one", "two"] * 50, "", "one") == ["one", "two", "again", "one"]


def test_reasons_that_are_never_the_same_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert len(told(caplog, *itertools.chain(map(str, range(1, 100)), [""]))) == 9
