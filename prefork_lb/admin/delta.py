"""What has changed from one document of an instance to the next."""
from __future__ import annotations

from typing import Any

Document = dict[str, Any]
_BY_THEMSELVES = ("now", "totals", "workers", "pools")


def delta(before: Document, after: Document) -> Document | None:
    """The changes, for a page that has `before`; None when it needs the whole: a pool or a server came or went, or a reload."""
    if _shape(before) != _shape(after):
        return None
    found: Document = {"now": after["now"]}
    if totals := _changed(before["totals"], after["totals"]):
        found["totals"] = totals
    if before["workers"] != after["workers"]:
        found["workers"] = after["workers"]
    pools, servers = {}, {}
    for old, new in zip(before["pools"], after["pools"], strict=True):
        name = new["name"]
        if fields := _changed(old, new, ("servers",)):
            pools[name] = fields
        if of_pool := {server["address"]: fields for was, server in zip(old["servers"], new["servers"], strict=True)
                       if (fields := _changed(was, server))}:
            servers[name] = of_pool
    if pools:
        found["pools"] = pools
    if servers:
        found["servers"] = servers
    found |= _changed(before, after, _BY_THEMSELVES)
    return found


def _shape(document: Document) -> list[Any]:
    return [document["generation"], *((pool["name"], [server["address"] for server in pool["servers"]])
                                      for pool in document["pools"])]


def _changed(before: Document, after: Document, but: tuple[str, ...] = ()) -> Document:
    return {name: value for name, value in after.items() if name not in but and before.get(name) != value}
