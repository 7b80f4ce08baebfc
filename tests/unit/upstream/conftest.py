"""A ledger in real shared memory."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from tests.unit.shared.processes import Master


@pytest.fixture
def segment() -> Iterator[Segment]:
    master = Master()
    segment = attach_or_create(master.pid, Layout(4, 8, 8))
    yield segment
    master.kill()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(DIRECTORY / segment.name)


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    return Ledger(segment)
