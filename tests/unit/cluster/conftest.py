"""Balancers that share through a store in memory."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork_lb.clock import ManualClock
from tests.unit.cluster.store import FakeStore, OneBalancer
from tests.unit.shared.conftest import new_master
from tests.unit.shared.processes import Master

__all__ = ["new_master"]

SERVERS = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
NewBalancer = Callable[..., OneBalancer]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def new_balancer(store: FakeStore, new_master: Callable[[], Master]) -> NewBalancer:
    return lambda name, servers=SERVERS, limit=0: OneBalancer(name, new_master(), store, servers, limit)
