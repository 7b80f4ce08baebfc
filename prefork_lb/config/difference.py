"""What changed from one configuration to another, in words."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from prefork_lb.config.model import Config
from prefork_lb.words import count

# Of health checks, own servers, the store, lists of servers and filters: they may have a password.
_HIDDEN = ("headers", "environment", "url", "http", "settings")


def differences(before: Config, after: Config) -> list[str]:
    """A line for each key, server and pool that differs, wherever both come from; empty when they say the same."""
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    del old["source"], new["source"]
    old_pools, new_pools = old.pop("pools"), new.pop("pools")
    found = []
    for name in [*old_pools, *(name for name in new_pools if name not in old_pools)]:
        if name not in new_pools:
            found.append(f"pool {name}: removed")
        elif name not in old_pools:
            found.append(f"pool {name}: added, {count(len(new_pools[name]['servers']), 'server')}")
        else:
            found += _servers(name, old_pools[name].pop("servers"), new_pools[name].pop("servers"))
            found += _section(f"pools.{name}", old_pools[name], new_pools[name])
    return [*found, *_section("", old, new)]


def _servers(pool: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    before, after = ({server["address"]: server for server in servers} for servers in (old, new))
    for address in [*before, *(address for address in after if address not in before)]:
        what = f"pool {pool}: server {address}"
        if address not in after:
            yield f"{what}: removed"
        elif address not in before:
            yield f"{what}: added"
        else:
            for key, value in after[address].items():
                if value != before[address][key]:
                    yield f"{what}: {key}: {_shown(before[address][key])} -> {_shown(value)}"
    if list(before) != list(after) and before.keys() == after.keys():
        yield f"pool {pool}: servers are in another order"


def _section(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        place = f"{path}.{key}" if path else key
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key in _HIDDEN:
            yield f"{place}: changed"
        elif before is None:
            yield f"{place}: added"
        elif after is None:
            yield f"{place}: removed"
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _section(place, before, after)
        elif any(isinstance(value, dict) for value in (*_items(before), *_items(after))):
            yield from _tables(place, _items(before), _items(after))
        else:
            yield f"{place}: {_shown(before)} -> {_shown(after)}"


def _tables(place: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Differences of an array of tables: its entries have no names, so they are told by their number."""
    for number in range(max(len(old), len(new))):
        where = f"{place}[{number}]"
        if number >= len(new):
            yield f"{where}: removed"
        elif number >= len(old):
            yield f"{where}: added"
        else:
            yield from _section(where, old[number], new[number])


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _shown(value: Any) -> str:
    """A value as TOML writes it, about."""
    return json.dumps(value, ensure_ascii=False)
