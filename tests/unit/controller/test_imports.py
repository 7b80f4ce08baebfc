"""What a controller imports. Each module is memory of every instance, so what only some configurations need waits for these."""
from __future__ import annotations

import subprocess
import sys

import pytest

# Nothing of these is needed by a controller that checks servers by HTTP and does nothing else.
NOT_NEEDED = (
    "logging.handlers", "prefork_lb.config.load", "prefork_lb.controller.pool_scaling", "prefork_lb.observe.metric_table",
    "prefork_lb.scaling.drivers", "prefork_lb.scaling.fleet", "tomllib", "redis", "dns", "requests")


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """By a controller before it knows its configuration."""
    command = "import sys, prefork_lb.controller.process; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_what_few_configurations_need_is_not_imported(imported: set[str], name: str) -> None:
    assert "prefork_lb.controller.process" in imported
    assert name not in imported
