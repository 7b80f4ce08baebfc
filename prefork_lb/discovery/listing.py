"""The text of a list of servers: our own form, and those of Prometheus' `file_sd` and `http_sd`.

A list is believed whole or not at all: half a list is worse than the one before.
"""
from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from prefork_lb.discovery.source import MOST_SERVERS, ListError
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address
from prefork_lb.shared.table import MOST_CONNECTIONS, MOST_WEIGHT, ServerEntry


class _Rules(msgspec.Struct, frozen=True):
    weight: Annotated[int, msgspec.Meta(ge=1, le=MOST_WEIGHT)] = 1
    max_connections: Annotated[int, msgspec.Meta(ge=0, le=MOST_CONNECTIONS)] = 0
    backup: bool = False


class _Server(_Rules, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server in our own form."""

    address: str


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Servers in Prometheus' form. Labels are texts; those that we do not know are other programs'."""

    targets: list[str]
    labels: dict[str, str] = msgspec.field(default_factory=dict)


def _load_yaml(text: str) -> object:
    import yaml  # most controllers never need it

    try:
        # The loader in C: the one in Python takes a minute for a megabyte.
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": _load_yaml,
    ".yml": _load_yaml,
}


def parse_listing(data: bytes, ending: str) -> dict[str, ServerEntry]:
    """The servers of a list in the format that this ending of a name stands for. Raises ListError."""
    try:
        values = _PARSERS[ending](data.decode())
    except UnicodeDecodeError as exc:
        raise ListError(f"not UTF-8: {exc.reason} at byte {exc.start}") from exc
    except (ValueError, RecursionError) as exc:
        raise ListError(f"not {ending[1:].upper()}: {' '.join(str(exc).split())}") from exc
    return servers_of(values)


def servers_of(values: object) -> dict[str, ServerEntry]:
    """The servers of a list as plain values. Raises ListError."""
    if isinstance(values, dict):
        if set(values) != {"servers"}:
            raise ListError(f'found a table with {_names(values)}; expected one with "servers", or a list')
        values = values["servers"]
    if not isinstance(values, list):
        raise ListError(f"found {type(values).__name__}; expected a list of servers")
    found: dict[str, ServerEntry] = {}
    for number, item in enumerate(values):
        try:
            for server in _servers(item):
                if found.setdefault(server.address, server) != server:
                    raise ListError(f"{server.address} is there twice, with different rules")
        except (msgspec.ValidationError, ValueError) as exc:
            raise ListError(f"entry {number}: {exc}") from exc
        if len(found) > MOST_SERVERS:
            raise ListError(f"more than {MOST_SERVERS} servers")
    return found


def entry(address: str, weight: int = 1, max_connections: int = 0, backup: bool = False) -> ServerEntry:
    """A server, with its address in the one spelling. Raises ValueError."""
    return ServerEntry(str(parse_address(address)), weight, max_connections, backup)


def _servers(item: Any) -> Iterator[ServerEntry]:
    if isinstance(item, str):
        yield entry(item)
    elif isinstance(item, dict) and "targets" in item:
        group = msgspec.convert(item, _Group)
        # Labels are texts: "3", "true".
        labels = {name: text for name, text in group.labels.items() if name in _Rules.__struct_fields__}
        rules = msgspec.convert(labels, _Rules, strict=False)
        for target in group.targets:
            yield entry(target, rules.weight, rules.max_connections, rules.backup)
    elif isinstance(item, dict):
        server = msgspec.convert(item, _Server)
        yield entry(server.address, server.weight, server.max_connections, server.backup)
    else:
        # Not the item itself: references of YAML make a few bytes gigabytes of text.
        raise ValueError(f"found {type(item).__name__}; expected an address or a table")


def _names(values: Mapping[Any, object]) -> str:
    return ", ".join(shown(name) for name in list(values)[:5]) or "nothing in it"
