"""What the demo runs: pools of small app servers, and the balancer's configuration for them."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DemoServer:
    """A small app server. `moods` is what it goes through, as prefork_lb.cli.demo_server reads it; "": it is well."""

    name: str
    delay_ms: int
    moods: str = ""

    def arguments(self) -> list[str]:
        """The arguments of its process."""
        return [self.name, str(self.delay_ms), self.moods]

    def troubles(self) -> str:
        """Its moods but for being well, to be read behind its delay."""
        troubles = [mood for mood in ("slow", "failing", "sick") if mood in self.moods]
        return f", {' and '.join(troubles)} at times" if troubles else ""


@dataclass(frozen=True)
class DemoPool:
    """`settings` are lines of TOML for the pool, and `limit` is each server's `max_connections`."""

    name: str
    servers: tuple[DemoServer, ...]
    settings: str = 'policy = "least-connections"\n'
    tables: str = ""
    limit: int = 0


@dataclass(frozen=True)
class DemoPlan:
    """`traffic`: the demo sends requests of its own."""

    pools: tuple[DemoPool, ...]
    routes: str = ""
    traffic: bool = False

    def servers(self) -> Iterable[DemoServer]:
        """All servers, pool by pool."""
        return (server for pool in self.pools for server in pool.servers)

    def configuration(self, addresses: Mapping[str, str], admin: str, access_log: str) -> str:
        """The configuration file, with the servers' addresses by name, the administration interface at `admin`, and, where
        there is traffic, an access log with all failures and a part of the rest."""
        parts = [f'[admin]\nbind = "{admin}"\n', self.routes]
        if self.traffic:
            parts.append(f'[proxy]\nrequest_id = true\n\n[log]\naccess = "{access_log}"\nsample = 0.01\n')
        for pool in self.pools:
            limit = f", max_connections = {pool.limit}" if pool.limit else ""
            servers = "\n".join(f'  {{ address = "{addresses[server.name]}"{limit} }},' for server in pool.servers)
            parts += [f"[pools.{pool.name}]\n{pool.settings}servers = [\n{servers}\n]\n", pool.tables]
        return "\n".join(part for part in parts if part)


CALM = DemoPlan((DemoPool("demo", (DemoServer("app-1", 10), DemoServer("app-2", 10), DemoServer("app-3-slow", 100))),))

_WELL = "well:60"
TROUBLE = DemoPlan(
    (
        DemoPool(
            "web",
            (DemoServer("web-1", 70, _WELL), DemoServer("web-2", 75, _WELL),
             DemoServer("web-3", 75, "well:12,slow:12,failing:14,well:22"), DemoServer("web-4", 80, _WELL)),
            tables="[pools.web.queue]\nsize = 50\n\n[pools.web.ejection]\nseconds = 8\n\n"
                   '[pools.web.health]\npath = "/healthz"\ninterval = 1\n',
            limit=12,
        ),
        DemoPool(
            "api",
            (DemoServer("api-1", 20, _WELL), DemoServer("api-2", 25, "well:20,sick:15,well:25"), DemoServer("api-3", 20, _WELL)),
            'policy = "peak-ewma"\n',
            '[pools.api.health]\npath = "/healthz"\ninterval = 1\n',
        ),
    ),
    '[[routes]]\npaths = ["/api/"]\npool = "api"\n\n[[routes]]\npool = "web"\n',
    traffic=True,
)
"""One server of `web` slows, fails and comes back, and one of `api` fails its checks, in turns of a minute."""
