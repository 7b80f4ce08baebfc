"""What all tests share: the repository on the import path, the markers, and the order among processes of one run."""
from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = str(Path(__file__).resolve().parents[1])
if REPOSITORY not in sys.path:
    # First: another package named `tests` may be installed.
    sys.path.insert(0, REPOSITORY)

from tests.support.reservation import Place, forget_the_shell, short_folder  # noqa: E402  # the path has to be set first

# Here and not in a hook: the conftest files below import the package, which reads the environment once.
forget_the_shell()
PLACE = Place()
PLACE.enter()


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(PLACE.leave)
    folder = short_folder()
    if folder is not None and config.option.basetemp is None:
        config.option.basetemp = folder
    config.addinivalue_line("markers", "slow: takes more than ten seconds (`-m 'not slow'` leaves it out)")
    config.addinivalue_line("markers", "alone: measures what other tests at the same time would disturb")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """With several processes (`-n 2`), let a test that is marked so run while the others pause between two tests."""
    descriptor = os.open(REPOSITORY, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)
    finally:
        os.close(descriptor)
