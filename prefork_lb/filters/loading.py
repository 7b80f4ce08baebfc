"""From "package.module:Class" to a filter."""
from __future__ import annotations

import importlib
import traceback

from prefork_lb.filters.filter import Filter, Setup

_MOST_WORDS = 300  # of an exception, in characters: it may quote what a client sent


def filter_class(name: str) -> type[Filter]:
    """A site's own class of a filter, named as `package.module:Class`.

    Raises ValueError with what was found and what is expected, also for whatever a site's own module raises when it is imported.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise ValueError(f"filter {name!r}: no module named {exc.name!r}; is it on PYTHONPATH?") from exc
    except Exception as exc:
        raise ValueError(f"filter {name!r}: {module_name} cannot be imported: {told(exc)}") from exc
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Filter)):
        raise ValueError(f"filter {name!r}: {module_name} has no class {class_name} that is a prefork_lb.filters.Filter")
    return found


def make_filter(name: str, setup: Setup) -> Filter:
    """A filter with its settings. Raises ValueError, also for whatever a site's own class raises."""
    found = filter_class(name)
    try:
        made = found(setup)
        setup.check_all_known()
    except Exception as exc:
        raise ValueError(f"filter {name!r}: it cannot be made: {told(exc)}") from exc
    return made


def told(exc: Exception) -> str:
    """What was raised, and where."""
    place = place_of(exc)
    return f"{type(exc).__name__}: {str(exc)[:_MOST_WORDS]}" + (f" ({place})" if place else "")


def place_of(exc: Exception) -> str:
    """File and line where an exception was raised; empty: nowhere, it was only made."""
    trace = traceback.extract_tb(exc.__traceback__)
    return f"{trace[-1].filename}:{trace[-1].lineno}" if trace else ""
