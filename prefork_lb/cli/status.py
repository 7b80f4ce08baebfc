"""`prefork-lb status`: every running instance of this user (of all users for root), from its shared memory."""
from __future__ import annotations

import dataclasses
import json

import click
from rich.table import Table

from prefork_lb.cli.running import running_segments
from prefork_lb.cli.tables import print_table
from prefork_lb.shared.view import InstanceView, PoolView, ServerView, WorkerView, view

_SILENT_S = 5.0  # a controller that has not looked for so long is worth a line; it looks four times a second


def instances() -> list[InstanceView]:
    """The instances whose gunicorn master runs."""
    found = []
    for segment in running_segments():
        found.append(view(segment))
        segment.close()
    return found


def _state(server: ServerView) -> str:
    """A server's state in words: the operator's setting, the result of checks, and its ejection."""
    if server.state != "ready":
        return server.state
    if server.check in ("down", "checking"):
        return f"{server.check}: {server.note}"
    if not server.usable:
        return f"ejected for {server.ejected_s:.0f} s" if server.ejected_s else "ejected, to be tried"
    return "up" if server.check == "up" else "ready"


def _limits(pool: PoolView) -> str:
    """A pool's limits and how far each is used, in a line."""
    parts = [f"{pool.in_flight} in flight" + (f" of {pool.in_flight_limit}" if pool.in_flight_limit else "")]
    if pool.queue_size:
        parts.append(f"{pool.waiting} waiting of {pool.queue_size}")
    parts.append(f"{pool.refused} refused")
    if pool.panic:
        parts.append("panic: all servers are used, whatever their checks say")
    if pool.tripped:
        parts.append("at the limit: " + ", ".join(pool.tripped))
    return f"pool {pool.name}: " + ", ".join(parts)


def _lingering(instance: InstanceView) -> list[WorkerView]:
    """The workers that were replaced and still serve the connections that they have."""
    return [worker for worker in instance.workers if worker.lingers_s]


def _linger_line(workers: list[WorkerView]) -> str:
    """Workers that linger, in a line."""
    connections = sum(worker.lingering for worker in workers)
    longest_s = max(worker.lingers_s for worker in workers)
    return f"lingering workers: {len(workers)}, {connections} connections, the oldest for {longest_s} s"


def _ago(seconds: float | None) -> str:
    """How long ago something was, in words; "-" for never."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s ago" if seconds < 10 else f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"


def _table(instance: InstanceView) -> Table:
    """The servers of an instance, a row each."""
    serving = len(instance.workers) - len(_lingering(instance))
    workers = f"{serving} worker{'s' if serving != 1 else ''}"
    table = Table(title=f"gunicorn master {instance.master}, {workers}, generation {instance.generation}", title_justify="left")
    for heading in ("pool", "server", "state", "checked", "weight", "limit", "in flight", "requests", "failures"):
        table.add_column(heading, justify="left" if heading in ("pool", "server", "state") else "right")
    for server in instance.servers:
        numbers = server.weight, server.max_connections or "-", server.in_flight, server.requests, server.failures
        table.add_row(server.pool, server.address + (" (backup)" if server.backup else ""), _state(server),
                      _ago(server.checked_s), *map(str, numbers))
    return table


def _controller(instance: InstanceView) -> str:
    """The problem of the instance's controller, in words; "" if there is none."""
    silent_s = instance.controller_silent_s
    if not instance.controller:
        return "no controller is at work: servers are not checked, and states are not saved"
    if silent_s is not None and silent_s >= _SILENT_S:
        return (f"the controller (pid {instance.controller}) has not moved for {silent_s:.0f} s: servers are not checked, "
                "and states are not saved")
    return ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the running instances: workers, servers, requests in flight."""
    found = instances()
    if as_json:
        click.echo(json.dumps({"instances": [dataclasses.asdict(instance) for instance in found]}, indent=1))
        return
    if not found:
        raise click.ClickException("no instance runs (of this user)")
    for instance in found:
        print_table(_table(instance), folds="state")
        problem = _controller(instance)
        if problem:
            click.echo(problem)
        if lingering := _lingering(instance):
            click.echo(_linger_line(lingering))
        for pool in instance.pools:
            if pool.panic or pool.queue_size or pool.in_flight_limit or pool.refused or pool.tripped:
                click.echo(_limits(pool))
