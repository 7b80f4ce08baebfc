"""Administration interfaces of an instance in real shared memory."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.config.admin import AdminConfig
from prefork_lb.shared.segment import Segment
from tests.unit.admin.interface import OPERATOR, READER, Interface
from tests.unit.shared.conftest import master, new_master, segment  # noqa: F401


@pytest.fixture
def new_interface(segment: Segment, tmp_path: Path) -> Callable[..., Interface]:  # noqa: F811
    """Makes interfaces of one instance; `tokens` makes the file of tokens."""

    def make(tokens: bool = False, **admin: Any) -> Interface:
        if tokens:
            (tmp_path / "tokens").write_text(f"operator {OPERATOR} ann\nreader {READER}\n")
            admin["token_file"] = str(tmp_path / "tokens")
        return Interface(segment, AdminConfig(**({"bind": "127.0.0.1:9900"} | admin)))

    return make


@pytest.fixture
def interface(new_interface: Callable[..., Interface]) -> Interface:
    """Without tokens."""
    return new_interface()


@pytest.fixture
def guarded(new_interface: Callable[..., Interface]) -> Interface:
    """With tokens."""
    return new_interface(tokens=True)
