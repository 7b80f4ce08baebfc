"""Fixtures over real processes: a rig of balancers and origins, and their logs when a test fails."""
from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.balancer import FRONT_ENDS, FrontEnd
from tests.support.rig import RUNNING, Rig

LOG_LINES = 80


@pytest.fixture(scope="module", params=FRONT_ENDS, ids=str)
def front_end(request: pytest.FixtureRequest) -> FrontEnd:
    """One test body over all worker classes."""
    found: FrontEnd = request.param
    return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Balancers and origins that end with the test."""
    with Rig(tmp_path) as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the log of every balancer that is running when a test fails."""
    report = yield
    if report.failed:
        for balancer in RUNNING:
            tail = "\n".join(balancer.log().splitlines()[-LOG_LINES:])
            report.sections.append((f"log of {balancer.front_end} in {balancer.folder}", tail))
    return report
