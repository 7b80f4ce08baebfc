"""What a controller imports. Each module is memory of every instance, so what only some configurations need waits for these."""
from __future__ import annotations

import subprocess
import sys

import pytest

# Nothing of these is needed by a controller that checks servers by HTTP and does nothing else.
NOT_NEEDED = (
    "argparse", "dns", "logging.handlers", "prefork_lb.config.load", "prefork_lb.controller.pool_scaling",
    "prefork_lb.observe.metric_table", "prefork_lb.scaling.drivers", "prefork_lb.scaling.fleet", "redis", "requests", "tomllib")

SCRIPT = """
import sys
from prefork_lb.controller import process
process.run = lambda *arguments: print(*sys.modules)
import prefork_lb.controller.__main__
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """By a controller before it knows its configuration."""
    command = [sys.executable, "-c", SCRIPT, "segment", "--descriptor", "3"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_what_few_configurations_need_is_not_imported(imported: set[str], name: str) -> None:
    assert "prefork_lb.controller.process" in imported
    assert name not in imported
