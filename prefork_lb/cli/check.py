"""`prefork-lb check`: all problems of a configuration at once, or a summary of it."""
from __future__ import annotations

import os
from pathlib import Path

import click

from prefork_lb.cli.check_room import room_notices
from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.config.load import find_and_load
from prefork_lb.config.model import Config
from prefork_lb.config.routes import answer_in_words, route_in_words
from prefork_lb.discovery.source import ListError
from prefork_lb.discovery.sources import make_source
from prefork_lb.errors import ConfigError
from prefork_lb.shared.segment import SegmentError
from prefork_lb.shared.state_file import folder_problem
from prefork_lb.shared.state_file_lock import describe, holder
from prefork_lb.words import count


@click.command()
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Check a configuration: all its problems at once, or what it says.

    Without FILE the one that a start here would find. Exits 1 when there are problems.

    \b
    Examples:
      prefork-lb check
      prefork-lb check new.toml && cp new.toml prefork_lb.toml && prefork-lb reload
    """
    try:
        config, notices = find_and_load(file)
    except ConfigError as exc:
        exit_with_problems(exc.problems)
    try:
        of_room = room_notices(config)
    except SegmentError as exc:
        of_room = [f"whether there is room cannot be seen: {exc}"]
    for notice in (*notices, *state_notices(config), *of_room, *discovery_notices(config)):
        click.echo(f"warning: {notice}", err=True)
    click.echo("\n".join(summary(config)))


def state_notices(config: Config) -> list[str]:
    """Why this user's instance could not write the state file, a line for each reason."""
    if not config.state.file:
        return []
    path = Path(config.state.file)
    found = []
    problem = folder_problem(path)
    if problem:
        found.append(f"{config.source}: state.file: {path}: {problem}; the states of servers would not be saved")
    holds = holder(path)
    # The instance that runs by this very file is the one that a reload is about to change.
    if holds is not None and holds.configuration != os.path.abspath(config.source):
        found.append(f"{config.source}: state.file: {path}: {describe(holds)}; a second one's states would not be saved: "
                     "give each instance a file of its own")
    return found


def discovery_notices(config: Config) -> list[str]:
    """Why the servers of pools cannot be found at the moment, a line for each pool. Asks name servers, and may take seconds."""
    found = []
    for name, pool in config.pools.items():
        if pool.discovery is not None:
            source, problem = make_source(pool.discovery), ""
            try:
                listed = len(source.look().servers)
                if listed < pool.discovery.min_servers:
                    problem = f"lists {listed} servers, fewer than min_servers, which is {pool.discovery.min_servers}"
            except ListError as exc:
                problem = str(exc)
            finally:
                source.close()
            if problem:
                found.append(f"{config.source}: pools.{name}.discovery: {pool.discovery.where}: {problem}; the pool would "
                             "have no server of it")
    return found


def summary(config: Config) -> list[str]:
    """A summary of the configuration, in lines."""
    listen = config.listen
    lines = [f"{config.source}: good", f"listen: {', '.join(listen.bind)}, workers: {listen.worker_count()}"]
    for name, pool in config.pools.items():
        redirects = f", redirects with {pool.redirect_status}" if pool.mode == "redirect" else ""
        more = f", and those of {pool.discovery.where}" if pool.discovery is not None else ""
        if pool.scaling is not None:
            more += f", and {pool.scaling.min} to {pool.scaling.max} of its own ({pool.scaling.driver})"
        lines.append(f"pool {name}: {pool.policy}, {count(len(pool.servers), 'server')}{more}{redirects}")
        for server in pool.servers:
            limit = f", at most {server.max_connections} at once" if server.max_connections else ""
            lines.append(f"  {server.address}, weight {server.weight}{limit}{', backup' if server.backup else ''}")
    for route in config.routes:
        lines.append(f"route {route_in_words(route)} -> {answer_in_words(route)}")
    if not config.routes:
        lines.append(f"no routes: everything -> pool {next(iter(config.pools))}")
    return lines
