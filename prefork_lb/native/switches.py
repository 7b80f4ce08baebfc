"""Environment variables that turn compiled modules off: any value but the empty one does."""
from __future__ import annotations

import os

PURE = "PREFORK_LB_PURE"
"""Nothing compiled at all."""

INTERPRETED = "PREFORK_LB_INTERPRETED"
"""The C by hand, but no module that mypyc has translated: tests put functions and objects in the place of a module's own."""


def is_pure() -> bool:
    """Whether the environment turns all compiled modules off."""
    return bool(os.environ.get(PURE))


def is_interpreted() -> bool:
    """Whether the environment turns the translated modules off."""
    return is_pure() or bool(os.environ.get(INTERPRETED))
