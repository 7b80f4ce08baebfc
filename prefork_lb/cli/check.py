"""`prefork-lb check`: all problems of a configuration at once, or what it says."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from prefork_lb.config import Config, load, notices
from prefork_lb.errors import ConfigError


@click.command()
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Check a configuration: all its problems at once, or what it says.

    Without FILE the one that a start here would find. Exits 1 when there are problems.
    """
    try:
        config = load(file)
    except ConfigError as exc:
        fail(exc.problems)
    for notice in notices(config):
        click.echo(f"warning: {notice}", err=True)
    click.echo("\n".join(summary(config)))


def fail(problems: Sequence[str]) -> NoReturn:
    """Print the problems to stderr and exit 1."""
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", err=True)
    sys.exit(1)


def summary(config: Config) -> list[str]:
    """What the configuration comes to, in lines."""
    listen = config.listen
    lines = [f"{config.source}: good", f"listen: {', '.join(listen.bind)}, workers: {listen.worker_count()}"]
    for name, pool in config.pools.items():
        count = len(pool.servers)
        lines.append(f"pool {name}: {pool.policy}, {count} server{'s' if count != 1 else ''}")
        for server in pool.servers:
            limit = f", at most {server.max_connections} at once" if server.max_connections else ""
            lines.append(f"  {server.address}, weight {server.weight}{limit}{', backup' if server.backup else ''}")
    for route in config.routes:
        hosts, paths = ", ".join(route.hosts) or "any host", ", ".join(route.paths) or "any path"
        lines.append(f"route {hosts}; {paths} -> pool {route.pool}")
    if not config.routes:
        lines.append(f"no routes: everything -> pool {next(iter(config.pools))}")
    return lines
