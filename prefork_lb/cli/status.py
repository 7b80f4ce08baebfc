"""`prefork-lb status`: every running instance of this user (of all users for root), from its shared memory."""
from __future__ import annotations

import dataclasses
import json
import os

import click
from rich.console import Console
from rich.table import Table

from prefork_lb.shared.segment import open_segment, segment_names
from prefork_lb.shared.view import InstanceView, PoolView, ServerView, WorkerView, view


def instances() -> list[InstanceView]:
    """The instances whose gunicorn master runs."""
    found = []
    for name in segment_names(None if os.geteuid() == 0 else os.geteuid()):
        segment = open_segment(name)
        if segment is None:
            continue
        if segment.masters():
            found.append(view(segment))
        segment.close()
    return found


def _state(server: ServerView) -> str:
    """In words: what the operator wants, what the checks say, whether it is ejected."""
    if server.state != "ready":
        return server.state
    if server.check in ("down", "checking"):
        return f"{server.check}: {server.note}"
    if not server.usable:
        return f"ejected for {server.ejected_s:.0f} s" if server.ejected_s else "ejected, to be tried"
    return "up" if server.check == "up" else "ready"


def _limits(pool: PoolView) -> str:
    """What a pool's limits are at, in a line."""
    parts = [f"{pool.in_flight} in flight" + (f" of {pool.in_flight_limit}" if pool.in_flight_limit else "")]
    if pool.queue_size:
        parts.append(f"{pool.waiting} waiting of {pool.queue_size}")
    parts.append(f"{pool.refused} refused")
    if pool.panic:
        parts.append("panic: all servers are used, whatever their checks say")
    if pool.tripped:
        parts.append("at the limit: " + ", ".join(pool.tripped))
    return f"pool {pool.name}: " + ", ".join(parts)


def _lingering(workers: list[WorkerView]) -> str:
    """Workers that were replaced and still serve somebody, in a line."""
    connections = sum(worker.lingering for worker in workers)
    longest_s = max(worker.lingers_s for worker in workers)
    return f"lingering workers: {len(workers)}, {connections} connections, the oldest for {longest_s} s"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the running instances: workers, servers, requests in flight."""
    found = instances()
    if as_json:
        click.echo(json.dumps({"instances": [dataclasses.asdict(instance) for instance in found]}, indent=1))
        return
    if not found:
        raise click.ClickException("no instance runs (of this user); an instance shows itself after its first request")
    console = Console()
    for instance in found:
        lingering = [worker for worker in instance.workers if worker.lingers_s]
        serving = len(instance.workers) - len(lingering)
        title = f"gunicorn master {instance.master}, {serving} workers, generation {instance.generation}"
        table = Table(title=title, title_justify="left")
        for heading in ("pool", "server", "state", "weight", "limit", "in flight", "requests", "failures"):
            table.add_column(heading, justify="left" if heading in ("pool", "server", "state") else "right")
        for server in instance.servers:
            numbers = server.weight, server.max_connections or "-", server.in_flight, server.requests, server.failures
            table.add_row(server.pool, server.address + (" (backup)" if server.backup else ""), _state(server),
                          *map(str, numbers))
        console.print(table)
        if lingering:
            console.print(_lingering(lingering))
        for pool in instance.pools:
            if pool.panic or pool.queue_size or pool.in_flight_limit or pool.refused or pool.tripped:
                console.print(_limits(pool))
