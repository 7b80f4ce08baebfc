"""All of it with the compiled module of heads and without."""
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from prefork_lb.native.loader import PURE, native_heads
from prefork_lb.wire import compiled


@pytest.fixture(scope="module", params=["native", "pure"], autouse=True)
def heads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = compiled.heads
    compiled.heads = native_heads() if request.param == "native" else None
    if request.param == "native" and compiled.heads is None:
        pytest.skip(f"native_heads is not compiled here, or {PURE} is set: {os.environ.get(PURE)}")
    yield
    compiled.heads = before
