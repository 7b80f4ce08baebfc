"""From "package.module:Class" to a filter."""
from __future__ import annotations

from prefork_lb.filters.filter import Filter, Setup
from prefork_lb.own_code import named, told


def filter_class(name: str) -> type[Filter]:
    """A site's own class of a filter, named as `package.module:Class`.

    Raises ValueError with what was found and what is expected, also for whatever a site's own module raises when it is imported.
    """
    module_name, _, class_name = name.partition(":")
    found = named("filter", name)
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
