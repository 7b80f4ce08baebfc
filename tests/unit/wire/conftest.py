"""All of it with the compiled modules and without."""
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from prefork_lb.native.loader import PURE, native_chunks, native_heads
from prefork_lb.wire import compiled


@pytest.fixture(scope="module", params=["native", "pure"], autouse=True)
def compiled_modules(request: pytest.FixtureRequest) -> Iterator[None]:
    before = compiled.heads, compiled.chunks
    compiled.heads, compiled.chunks = (native_heads(), native_chunks()) if request.param == "native" else (None, None)
    if request.param == "native" and (compiled.heads is None or compiled.chunks is None):
        pytest.skip(f"the modules are not compiled here, or {PURE} is set: {os.environ.get(PURE)}")
    yield
    compiled.heads, compiled.chunks = before
