"""Writes docs/configuration.md from the model: `python -m prefork_lb.config.reference > docs/configuration.md`."""
from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from prefork_lb.balance.registry import POLICY_NAMES
from prefork_lb.config import model, pool
from prefork_lb.config.access import BasicAuthConfig, ForwardAuthConfig
from prefork_lb.config.admin import AdminConfig
from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.discovery import DiscoveryConfig
from prefork_lb.config.filters import FilterConfig
from prefork_lb.config.load import LOCAL_FILE, SYSTEM_FILE
from prefork_lb.config.log import LogConfig
from prefork_lb.config.metrics import MetricsConfig
from prefork_lb.config.routes import (
    BandwidthConfig,
    ConcurrencyConfig,
    CorsConfig,
    FieldChangesConfig,
    HttpsConfig,
    MirrorConfig,
    RateConfig,
    RespondConfig,
    RouteConfig,
    RouteTimeoutsConfig,
)
from prefork_lb.config.scaling import ScalingConfig, ScheduleConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.config.tracing import TracingConfig

_SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[listen]", model.ListenConfig), ("[[listen.certificates]]", model.CertificateConfig), ("[proxy]", model.ProxyConfig),
    ("[proxy.timeouts]", model.TimeoutsConfig),
    ("[proxy.keepalive]", model.KeepaliveConfig), ("[proxy.limits]", model.LimitsConfig),
    ("[proxy.buffers]", model.BuffersConfig), ("[pools.NAME]", pool.PoolConfig),
    ("a server in [pools.NAME] servers", pool.ServerConfig), ("[pools.NAME.tls]", pool.TLSConfig),
    ("[pools.NAME.health]", pool.HealthConfig), ("[pools.NAME.ejection]", pool.EjectionConfig),
    ("[pools.NAME.retries]", pool.RetriesConfig),
    ("[pools.NAME.queue]", pool.QueueConfig), ("[pools.NAME.breaker]", pool.BreakerConfig),
    ("[pools.NAME.sticky]", StickyConfig),
    ("[pools.NAME.scaling]", ScalingConfig), ("a time in [pools.NAME.scaling] schedules", ScheduleConfig),
    ("[pools.NAME.discovery]", DiscoveryConfig), ("[[routes]]", RouteConfig), ("`mirror` of [[routes]]", MirrorConfig),
    ("`timeouts` of [[routes]]", RouteTimeoutsConfig), ("`cors` of [[routes]]", CorsConfig),
    ("`https` of [[routes]]", HttpsConfig),
    ("`rate` of [[routes]]", RateConfig), ("`concurrency` of [[routes]]", ConcurrencyConfig),
    ("`bandwidth` of [[routes]]", BandwidthConfig),
    ("`basic_auth` of [[routes]]", BasicAuthConfig), ("`forward_auth` of [[routes]]", ForwardAuthConfig),
    ("`respond` of [[routes]]", RespondConfig),
    ("`request` and `response` of [[routes]]", FieldChangesConfig),
    ("[state]", model.StateConfig), ("[admin]", AdminConfig),
    ("[cluster]", ClusterConfig), ("[metrics]", MetricsConfig), ("[tracing]", TracingConfig), ("[log]", LogConfig),
)

_INTRODUCTION = f"""# Configuration

This page is written by `python -m prefork_lb.config.reference` from the code; a test holds it against it.

The file is TOML 1.0. It is looked for, in this order, at

1. `$PREFORK_LB_CONFIG`,
2. `{LOCAL_FILE}` in the folder gunicorn is started in,
3. `{SYSTEM_FILE}`.

With none of them, `$PREFORK_LB_SERVERS` makes one pool, as in `127.0.0.1:8001,127.0.0.1:8002 weight=2`: addresses separated by
commas, each with the keys of a server behind it. `$PREFORK_LB_POLICY` then names the policy and `$PREFORK_LB_BIND` the addresses
to listen on.

`prefork-lb check [FILE]` tells all problems of a file at once, by line, and so does a start. Unknown keys are errors.

## gunicorn

With our `gunicorn.conf.py` (or `prefork-lb run`) gunicorn's `bind`, `workers`, `timeout` and `limit_request_*` come from
the file. gunicorn's own command line wins over it, and sockets that systemd hands over win over `bind`.

## Reload

HUP reads the file anew and starts new workers; the old ones finish what they have. With our `gunicorn.conf.py` a file that is
wrong by then leaves the last good one in force, and the log says why; without it, gunicorn stops when a worker cannot load
its application.
"""

_POLICIES = f"""## Policies

{", ".join(f"`{name}`" for name in POLICY_NAMES)}, or `"package.module:Class"`: see [policies.md](policies.md).
"""

_ROUTES = """
With one pool and no route, the pool gets everything. A request that no route matches is answered with 404.
"""


def reference() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    for heading, kind in _SECTIONS:
        parts.append(f"## `{heading}`\n\n{inspect.getdoc(kind)}\n\n{_table(kind)}{_ROUTES if kind is RouteConfig else ''}")
    return "\n".join([*parts, _POLICIES])


def _table(kind: type[msgspec.Struct]) -> str:
    hints = get_type_hints(kind, include_extras=True)
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            rows.append(f"| `{field.name}` | {_values(hint)} | {_default(field)} | {_meaning(hint)} |")
    return "\n".join(rows) + "\n"


def _meaning(hint: Any) -> str:
    return next((meta.description for meta in reversed(hint.__metadata__) if meta.description), "")


def _default(field: Any) -> str:
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT:
        return f"`{field.default_factory()}`"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(_literal(item) for item in field.default)}]`"
    return f"`{_literal(field.default)}`"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _values(hint: Any) -> str:
    """What a key may hold, in words: `number above 0, at most 86400`."""
    if get_origin(hint) is Annotated:
        kind, *metadata = get_args(hint)
        limits = [text for meta in metadata for text in _limits(meta)]
        return ", ".join([_values(kind), *limits])
    if get_origin(hint) is tuple:
        return f"list of {_ELEMENTS.get(get_args(hint)[0], 'strings')}"
    if get_origin(hint) is dict:
        return "table of strings" if get_args(hint)[1] is str else "table of whole numbers"
    if hint in _NAMES:
        return _NAMES[hint]
    if get_origin(hint) is Literal:
        return " or ".join(f"`{_literal(choice)}`" for choice in get_args(hint))
    return " or ".join(_values(part) for part in get_args(hint))


_ELEMENTS: dict[Any, str] = {pool.ServerConfig: "servers", FilterConfig: "filters", ScheduleConfig: "times"}
_NAMES: dict[Any, str] = {str: "string", int: "whole number", float: "number", bool: "true or false"}


def _limits(meta: msgspec.Meta) -> list[str]:
    limits = []
    if meta.gt is not None:
        limits.append(f"above {meta.gt}")
    if meta.ge is not None:
        limits.append(f"at least {meta.ge}")
    if meta.le is not None:
        limits.append(f"at most {meta.le}")
    return limits


if __name__ == "__main__":
    print(reference(), end="")
