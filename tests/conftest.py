"""What all tests share: the repository on the import path, the markers, and the order among processes of one run."""
from __future__ import annotations

import gc
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
from tests.support.turns import Turns  # noqa: E402

# Here and not in a hook: the conftest files below import the package, which reads the environment once.
forget_the_shell()
# Tests put functions and objects of their own in the place of a module's, and what is translated does not look there. What they
# start is for itself again.
os.environ["PREFORK_LB_INTERPRETED"] = "1"
import prefork_lb  # noqa: E402, F401  # reads it

del os.environ["PREFORK_LB_INTERPRETED"]
PLACE = Place()
PLACE.enter()
TURNS = Turns(Path(REPOSITORY), Path(REPOSITORY) / "tests")


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(PLACE.leave)
    folder = short_folder()
    if folder is not None and config.option.basetemp is None:
        config.option.basetemp = folder
    config.addinivalue_line("markers", "slow: takes more than ten seconds (`-m 'not slow'` leaves it out)")
    config.addinivalue_line("markers", "alone: measures what other tests at the same time would disturb")


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """With several processes (`-n 2`), let a test that is marked so run while the others pause between two tests.

    Several of them in a row keep the turn: to be alone again, each would wait for the longest test that runs by then.
    """
    alone = is_alone(item)
    TURNS.take(alone)
    try:
        return (yield)
    finally:
        if not (alone and nextitem is not None and is_alone(nextitem)):
            TURNS.give_back()


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from thousands of tests: it writes to each object, and a forked child then copies it."""
    gc.collect()
    gc.freeze()
