"""Exit codes of the controller, for the worker that started it."""
from __future__ import annotations

ANOTHER_RUNS = 3
"""It found another controller of its instance at work."""
