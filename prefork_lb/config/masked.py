"""A configuration for others' eyes."""
from __future__ import annotations

from typing import Any

import msgspec

from prefork_lb.config.discovery import MASK, without_secrets
from prefork_lb.config.model import Config


def masked(config: Config) -> dict[str, Any]:
    """The configuration as plain values, without the secrets in it: the fields that health checks send may be credentials, and
    so may variables of the environment of servers and settings of filters; URLs of the store and of lists of servers may have
    passwords."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    for pool in values["pools"].values():
        if pool["health"] is not None:
            pool["health"]["headers"] = dict.fromkeys(pool["health"]["headers"], MASK)
        if pool["scaling"] is not None:
            pool["scaling"]["environment"] = dict.fromkeys(pool["scaling"]["environment"], MASK)
        if pool["discovery"] is not None:
            pool["discovery"]["http"] = without_secrets(pool["discovery"]["http"])
    for section in (*values["pools"].values(), *values["routes"]):
        for each in section["filters"]:
            each["settings"] = dict.fromkeys(each["settings"], MASK)
    if values["cluster"] is not None:
        values["cluster"]["url"] = without_secrets(values["cluster"]["url"])
    return values
