"""The filters of examples/, made as a worker makes them."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.filters import Filter, Memory, Setup
from prefork_lb.filters.filter import SettingValue
from prefork_lb.filters.loading import make_filter
from tests.unit.filters.asked import NoHTTP

MakeFilter = Callable[..., Filter]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, clock: ManualClock, memory: Memory) -> MakeFilter:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")

    def made(name: str, /, **settings: SettingValue) -> Filter:
        return make_filter(name, Setup(settings, memory, NoHTTP(), clock))

    return made
