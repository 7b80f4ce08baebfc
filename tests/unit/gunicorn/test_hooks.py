"""What gunicorn's hooks load, and when."""
from __future__ import annotations

import subprocess
import sys

from tests.support.place import clean_environment

CODE = """
import gc, logging, sys
from types import SimpleNamespace
from prefork_lb.gunicorn import settings, hooks
print("prefork_lb.wiring.application" in sys.modules)
hooks.on_starting(SimpleNamespace(pid=0, log=logging.getLogger()))
print("prefork_lb.wiring.application" in sys.modules)
print(gc.get_freeze_count() > 10_000)
"""


def test_the_master_loads_the_application_for_all_workers_and_not_before_gevent_could_patch() -> None:
    """And a worker's garbage collector leaves the objects alone, so that their memory stays shared."""
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=clean_environment())
    assert shown.stdout.split() == ["False", "True", "True"]
