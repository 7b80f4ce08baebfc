"""A site's own filters: `filters` of a route or pool. See `config.model`."""
from __future__ import annotations

from msgspec import field

from prefork_lb.config.section import Section

FILTERS_DOC = ("The site's own classes that look at requests, in this order: `\"package.module:Class\"`, or "
               "`{ use = \"package.module:Class\" }` with settings of the class beside `use`. See [filters.md](filters.md).")


class FilterConfig(Section, frozen=True):
    """A filter. In the file the settings stand beside `use`, or `use` is all there is."""

    use: str
    settings: dict[str, str | bool | int | float | tuple[str, ...]] = field(default_factory=dict)


def with_settings(value: object) -> object:
    """A filter as the file has it, as the model has it."""
    if isinstance(value, str):
        return {"use": value}
    if not isinstance(value, dict):
        return value
    settings = {name: each for name, each in value.items() if name != "use"}
    return {name: value[name] for name in ("use",) if name in value} | {"settings": settings}
