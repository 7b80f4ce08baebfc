"""An instance in real shared memory, as the tests of `shared` have it."""
from __future__ import annotations

from tests.unit.shared.conftest import master, new_master, segment  # noqa: F401
