"""Turns TOML's values into the model, and finds every problem of a file in one pass.

msgspec checks types and ranges but stops at the first problem, so it is called for each value separately.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from prefork_lb.config.filters import FilterConfig, with_settings
from prefork_lb.config.pool import ServerConfig
from prefork_lb.config.positions import Path
from prefork_lb.errors import shown

ReportProblem = Callable[[Path, str], None]
"""Called with the path of a value and what is wrong with it."""

_WRONG_TYPE = re.compile(r"Expected `(.+?)`, got `(.+?)`")
_NAMES = {
    "str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "a table", "int | str": 'a whole number or "auto"',
}


def decode(kind: Any, value: object, path: Path, report: ReportProblem) -> Any:
    """`value` as `kind`, a type of the model; problems go to `report`, and None comes back for what has any."""
    bare = _without_metadata(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        if bare is ServerConfig and isinstance(value, str):
            value = {"address": value}
        elif bare is FilterConfig:
            value = with_settings(value)
        return _section(bare, value, path, report)
    if get_origin(bare) in (tuple, dict) and isinstance(value, (list, dict)) and _too_short(kind, value, path, report):
        return None
    if get_origin(bare) is tuple and isinstance(value, list):
        item = get_args(bare)[0]
        return tuple(decode(item, element, (*path, index), report) for index, element in enumerate(value))
    if get_origin(bare) is dict and isinstance(value, dict):
        item = get_args(bare)[1]
        return {name: decode(item, element, (*path, name), report) for name, element in value.items()}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        report(path, _in_words(str(exc), value, kind))
        return None


def _section(kind: type[msgspec.Struct], value: object, path: Path, report: ReportProblem) -> Any:
    if not isinstance(value, dict):
        report(path, f"found {_kind_of(value)}, expected a table")
        return None
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "source"}
    for name in value:
        if name not in fields:
            report((*path, name), f"unknown key; expected one of {', '.join(sorted(fields))}{did_you_mean(name, fields)}")
    values = {}
    for name, field in fields.items():
        if name in value:
            values[name] = decode(_optional(hints[name]), value[name], (*path, name), report)
        elif field.required:
            report((*path, name), "missing")
            values[name] = None
    # Values that were refused stand as None here; the caller raises before anybody sees them.
    return kind(**values)


def did_you_mean(found: str, known: Any) -> str:
    """A hint at the nearest right name, or nothing."""
    near = difflib.get_close_matches(found, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _without_metadata(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _optional(kind: Any) -> Any:
    """X for `X | None`: TOML has no null, so a key that is there has a value."""
    sections = [part for part in get_args(kind) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return sections[0] if type(None) in get_args(kind) and sections else kind


def _too_short(kind: Any, value: list[Any] | dict[str, Any], path: Path, report: ReportProblem) -> bool:
    least = next((meta.min_length for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)), None) or 0
    if len(value) < least:
        report(path, "is empty; expected at least one")
        return True
    return False


def _in_words(message: str, value: object, kind: Any) -> str:
    match = _WRONG_TYPE.match(message)
    if match:
        return f"found {_kind_of(value)}, expected {_NAMES.get(match[1], match[1])}"
    limits = _limits(kind)
    text = shown(value)
    if limits and isinstance(value, (int, float)):
        return f"{text} is not {limits if limits.startswith('above') else f'in {limits}'}"
    parts = [_without_metadata(part) for part in (kind, *get_args(kind))]
    choices = [choice for part in parts for choice in get_args(part) if isinstance(choice, (str, int))]
    if choices:
        return f"found {text}, expected {' or '.join(map(repr, choices))}"
    return f"found {text}: {message[0].lower()}{message[1:]}"


def _limits(kind: Any) -> str:
    """The range that a number's type allows, as `1..1000`."""
    low: Any = None
    high: Any = None
    for part in (kind, *get_args(kind), *get_args(_without_metadata(kind))):
        for meta in getattr(part, "__metadata__", ()):
            low = meta.ge if meta.ge is not None else f"above {meta.gt}" if meta.gt is not None else low
            high = meta.le if meta.le is not None else high
    if low is None or high is None:
        return ""
    return f"{low}, at most {high}" if isinstance(low, str) else f"{low}..{high}"


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return shown(value)
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"
