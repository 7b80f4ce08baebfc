"""`prefork-lb status`: every running instance of this user (of all users for root), or one elsewhere."""
from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence

import click
from rich.table import Table

from prefork_lb.cli.instances import Document, InstanceChoice, instance_options
from prefork_lb.cli.split import split_in_words
from prefork_lb.cli.tables import print_table
from prefork_lb.cli.units import ago, rate
from prefork_lb.words import count

_SILENT_S = 5.0  # a controller without a sign of life for so long gets a line; it gives one four times a second
_WATCH_S = 1.0
_TEXT_COLUMNS = ("pool", "server", "state")


def _limits_line(pool: Document) -> str:
    """A pool's limits and how far each is used, in a line."""
    limit = pool["in_flight_limit"]
    parts = [f"{pool['in_flight']} in flight" + (f" of {limit}" if limit else "")]
    if pool["queue_size"]:
        parts.append(f"{pool['waiting']} waiting of {pool['queue_size']}")
    parts.append(f"{pool['refused']} refused")
    if pool["panic"]:
        parts.append("panic: all servers are used, whatever their checks say")
    if pool["tripped"]:
        parts.append("at the limit: " + ", ".join(pool["tripped"]))
    return f"pool {pool['name']}: " + ", ".join(parts)


def _scaling_line(name: str, scaling: Document) -> str:
    """The servers of a pool that the instance starts itself, and why so many, in a line."""
    counts = [f"{scaling[state]} {state}" for state in ("running", "starting", "ending") if scaling[state]]
    return (f"pool {name} scales: {scaling['wanted']} wanted, {', '.join(counts) or 'none running'}"
            f"{', being replaced' if scaling['rolling'] else ''}: {scaling['why']}")


def _discovery_line(name: str, discovery: Document, now: float) -> str:
    """Where the servers of a pool are listed, and how that goes, in a line."""
    good = "no list yet" if discovery["last_ok"] is None else (
        f"{count(discovery['servers'], 'server')}, good {ago(max(0.0, now - discovery['last_ok']))}")
    error = f"; {'fails' if discovery['state'] == 'failing' else 'problem'}: {discovery['error']}" if discovery["error"] else ""
    return f"pool {name} discovers ({discovery['source'] or 'unknown'}): {good}{error}"


def _linger_line(workers: Sequence[Document]) -> str:
    """Workers that were replaced and still serve the connections that they have, in a line."""
    connections = sum(worker["clients"] or 0 for worker in workers)
    longest_s = max(worker["lingers_s"] for worker in workers)
    return f"lingering workers: {len(workers)}, {connections} connections, the oldest for {longest_s} s"


def _server_table(instance: Document, lingering: int) -> Table:
    """The servers of an instance, a row each. Figures that the instance does not count, or does not know yet, have no column."""
    serving, has_codes = len(instance["workers"]) - lingering, instance["statistics"]
    servers = [server for pool in instance["pools"] for server in pool["servers"]]
    has_rates = any(server["rate"] is not None for server in servers)
    title = f"gunicorn master {instance['master']}, {count(serving, 'worker')}, generation {instance['generation']}"
    table = Table(title=title, title_justify="left")
    numbers = [*(["5xx"] if has_codes else []), *(["rate", "latency"] if has_rates else [])]
    for heading in (*_TEXT_COLUMNS, "checked", "weight", "limit", "in flight", "requests", "failures", *numbers):
        table.add_column(heading, justify="left" if heading in _TEXT_COLUMNS else "right")
    for server in servers:
        cells = [server["weight"], server["max_connections"] or "-", server["in_flight"], server["requests"], server["failures"]]
        if has_codes:
            cells.append(server["codes"]["5xx"])
        if has_rates:
            latency = server["latency_ms"]
            cells += [rate(server["rate"]), f"{latency:.1f} ms" if latency is not None else "-"]
        reason = f": {server['reason']}" if server["reason"] else ""
        table.add_row(server["pool"], server["address"] + (" (backup)" if server["backup"] else ""), server["state"] + reason,
                      ago(server["checked_s"]), *map(str, cells))
    return table


def _controller_problem(instance: Document) -> str:
    """The problem of the instance's controller, in words; "" if there is none."""
    controller = instance["controller"]
    if controller is None:
        return "no controller is at work: servers are not checked, and states are not saved"
    if controller["silent_s"] >= _SILENT_S:
        return (f"the controller (pid {controller['pid']}) has not moved for {controller['silent_s']:.0f} s: servers are not "
                "checked, and states are not saved")
    return ""


def _compiled_line(workers: Sequence[Document]) -> str:
    """Whether the workers have the compiled modules, in a line."""
    without = [str(worker["pid"]) for worker in workers if not worker["compiled"]]
    if not without:
        return "compiled modules: in use"
    which = "" if len(without) == len(workers) else f" by {count(len(without), 'worker')} ({', '.join(without)})"
    return f"compiled modules: not in use{which}, so a request costs more; a wheel or a C compiler brings them"


def _cluster_table(balancers: Sequence[Document]) -> Table:
    """The balancers that share, a row each."""
    table = Table(title=count(len(balancers), "balancer"), title_justify="left")
    for heading in ("balancer", "state", "in flight", "last report", "exchange"):
        table.add_column(heading, justify="left" if heading in ("balancer", "state") else "right")
    for balancer in balancers:
        words = ["shares" if balancer["together"] else "goes on by itself", *(["checks for all"] if balancer["checks"] else [])]
        name = balancer["name"] + (" (this one)" if balancer["self"] else "")
        table.add_row(name, ", ".join(words), str(balancer["in_flight"]), f"{balancer['silent_s']:.2f} s ago",
                      f"{balancer['round_ms']:.1f} ms")
    return table


def _cluster_line(balancers: Sequence[Document]) -> str:
    """How many other balancers an instance shares with, in a line."""
    own = next((balancer for balancer in balancers if balancer["self"]), None)
    if own is None or not own["together"]:
        return "this balancer goes on by itself; the error log says why"
    return f"shares with {count(len(balancers) - 1, 'other balancer')}: prefork-lb status --cluster"


def _show_balancers(instance: Document) -> None:
    if instance["cluster"] is None:
        click.echo(f"gunicorn master {instance['master']}: the configuration has no [cluster]")
    else:
        print_table(_cluster_table(instance["cluster"]), folds="state")


def _show(instance: Document) -> None:
    lingering = [worker for worker in instance["workers"] if worker["lingers_s"]]
    print_table(_server_table(instance, len(lingering)), folds="state")
    problem = _controller_problem(instance)
    if problem:
        click.echo(problem)
    if instance["workers"]:
        click.echo(_compiled_line(instance["workers"]))
    if lingering:
        click.echo(_linger_line(lingering))
    if instance["cluster"] is not None:
        click.echo(_cluster_line(instance["cluster"]))
    for split in instance["splits"]:
        click.echo(split_in_words(split))
    for pool in instance["pools"]:
        if pool["panic"] or pool["queue_size"] or pool["in_flight_limit"] or pool["refused"] or pool["tripped"]:
            click.echo(_limits_line(pool))
        if pool["scaling"]:
            click.echo(_scaling_line(pool["name"], pool["scaling"]))
        if pool["discovery"]:
            click.echo(_discovery_line(pool["name"], pool["discovery"], instance["now"]))


@click.command()
@instance_options
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--cluster", "all_balancers", is_flag=True, help="The balancers that share with it, in place of its servers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch a line each time.")
def status(choice: InstanceChoice, watch: bool, as_json: bool, all_balancers: bool) -> None:
    """Show the running instances: workers, servers, requests in flight.

    Rates and times to answer are those of the last seconds, so they are shown with --watch or --url only.

    \b
    Examples:
      prefork-lb status
      prefork-lb status --watch
      prefork-lb status --cluster
      prefork-lb status --json | jq '.instances[].pools[].servers[] | select(.usable | not) | .address'
      prefork-lb status --url http://10.0.0.5:9900 --token-file token
    """
    found = choice.open_all()
    if not found and not as_json:
        raise click.ClickException("no instance runs (of this user)")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            documents = [instance.document() for instance in found]
            if as_json:
                click.echo(json.dumps({"instances": documents}, indent=None if watch else 1))
            else:
                if watch and sys.stdout.isatty():
                    click.clear()
                for document in documents:
                    (_show_balancers if all_balancers else _show)(document)
            if not watch:
                return
            time.sleep(_WATCH_S)
