"""The section `[cluster]`: several balancers that share what they know through Redis or Valkey."""
from __future__ import annotations

from typing import Annotated, Literal

from prefork_lb.config.section import Section, meta


class ClusterConfig(Section, frozen=True):
    """Several balancers as one, see [cluster.md](cluster.md): what those with the same `name` in the same store know of servers,
    they share. No request waits for the store; without it each balancer goes on by itself. It needs redis-py:
    `pip install prefork-lb[cluster]`."""

    url: Annotated[str, meta(
        'Where Redis or Valkey is: "redis://HOST:PORT/0", "rediss://..." (TLS) or "unix:///path?db=0", with `USER:PASSWORD@` '
        "before the host where it asks for that; with Redis Cluster any node, with Sentinel any sentinel.", min_length=1
    )]
    name: Annotated[str, meta("Balancers of the same name share.", pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")] = "prefork_lb"
    balancer: Annotated[str, meta(
        "This balancer's own name, which no other one has. None: the host's name and the pid of the first gunicorn master.",
        pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z"
    )] = ""
    kind: Annotated[Literal["single", "sentinel", "cluster"], meta(
        "One Redis or Valkey (also a primary behind one address), those that sentinels watch, or Redis Cluster."
    )] = "single"
    sentinels: Annotated[tuple[str, ...], meta('Further sentinels, as "HOST:PORT".')] = ()
    service: Annotated[str, meta("The name by which the sentinels know the primary.")] = ""
    interval: Annotated[float, meta(
        "Seconds between two exchanges with the store. They come less often when there is much to read: a balancer reads 1 MiB a "
        "second at most.", ge=0.01, le=5
    )] = 0.05
    secret_file: Annotated[str, meta(
        "File whose first line is a secret that all balancers have. With it they share the sessions of pools that learn; without "
        "it each learns by itself. It also hashes the keys of limits of rates and of requests at once."
    )] = ""
