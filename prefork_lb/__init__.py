"""prefork_lb: an HTTP load balancer that runs under gunicorn's workers and shares every server's load between them.

`gunicorn prefork_lb:app` starts it; `app` is built when it is asked for.
"""
from __future__ import annotations

from typing import Any

from prefork_lb.native import translated

__version__ = "0.1.0"

__all__ = ["__version__", "app"]

translated.use()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prefork_lb.wiring.application import application

    return application()
