"""All that uses compiled modules runs with them and without."""
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from prefork_lb.native.loader import native_chunks, native_heads
from prefork_lb.native.switches import PURE
from prefork_lb.wire import compiled

_PYTHON_ALONE = ("test_cookies", "test_memo", "test_proxy_protocol", "test_proxy_protocol_haproxy")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] not in _PYTHON_ALONE:
        metafunc.parametrize("compiled_modules", ["native", "pure"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def compiled_modules(request: pytest.FixtureRequest) -> Iterator[None]:
    before, wanted = (compiled.heads, compiled.chunks), getattr(request, "param", None)
    if wanted is not None:
        compiled.heads, compiled.chunks = (native_heads(), native_chunks()) if wanted == "native" else (None, None)
    if wanted == "native" and (compiled.heads is None or compiled.chunks is None):
        pytest.skip(f"the modules are not compiled here, or {PURE} is set: {os.environ.get(PURE)}")
    yield
    compiled.heads, compiled.chunks = before
