"""What all tests share: the repository on the import path, and the markers."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPOSITORY = str(Path(__file__).resolve().parents[1])
if REPOSITORY not in sys.path:
    # First: another package named `tests` may be installed.
    sys.path.insert(0, REPOSITORY)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than ten seconds (`-m 'not slow'` leaves it out)")
