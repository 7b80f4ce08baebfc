"""A hub for each test."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.green.hub import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()
