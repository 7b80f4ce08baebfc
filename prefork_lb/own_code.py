"""A site's own classes, policies and filters: named in the configuration as `package.module:Class`."""
from __future__ import annotations

import importlib
import traceback

_MOST_WORDS = 300  # of an exception, in characters: it may quote what a client sent


def named(kind: str, name: str) -> object:
    """What the name stands for; None: its module has nothing of this name. `kind` is what it is to be, for the messages.

    Raises ValueError, also for whatever a site's own module raises when it is imported.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise ValueError(f"{kind} {name!r}: no module named {exc.name!r}; is it on PYTHONPATH?") from exc
    except Exception as exc:
        raise ValueError(f"{kind} {name!r}: {module_name} cannot be imported: {told(exc)}") from exc
    return getattr(module, class_name, None)


def told(exc: Exception) -> str:
    """What was raised, and where."""
    place = place_of(exc)
    return f"{type(exc).__name__}: {str(exc)[:_MOST_WORDS]}" + (f" ({place})" if place else "")


def place_of(exc: Exception) -> str:
    """File and line where an exception was raised; empty: nowhere, it was only made."""
    trace = traceback.extract_tb(exc.__traceback__)
    return f"{trace[-1].filename}:{trace[-1].lineno}" if trace else ""
