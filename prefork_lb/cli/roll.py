"""`prefork-lb roll`: replaces the servers of a pool that the balancer starts itself."""
from __future__ import annotations

import sys
import time

import click

from prefork_lb.cli.completion import complete_pool
from prefork_lb.cli.exits import Exit
from prefork_lb.cli.instances import Document, Instance, InstanceChoice, instance_options
from prefork_lb.cli.number import Number
from prefork_lb.scaling.rolling import GONE_BACK
from prefork_lb.shared.events import Event, EventKind

_LOOK_S = 0.1


@click.command()
@click.argument("pool", shell_complete=complete_pool)
@click.option("--surge", type=click.IntRange(min=1), default=1, show_default=True, help="New servers that come up at a time.")
@click.option("--timeout", "timeout_s", type=Number(min=0), default=3600.0, show_default=True,
              help="Seconds to wait at most; then the exit code is 1, and the roll goes on.")
@instance_options
def roll(choice: InstanceChoice, pool: str, surge: int, timeout_s: float) -> None:
    """Replace the servers of POOL by new ones: a deployment without a lost request.

    A new server is started, and when it is ready and its slow start is over, an old one is drained. So there are never fewer
    than before. Old servers are kept until all are replaced. When a new one does not come up, they serve again, the new ones end,
    and the exit code is 3.

    \b
    Examples:
      prefork-lb roll app
      prefork-lb roll app --surge 2 --url http://10.0.0.5:9900 --token-file token
    """
    instance = choice.open()
    last = max((event.seq for event in instance.events(0)), default=0)
    old = _serving(_pool(instance, pool))
    instance.roll(pool, surge)
    click.echo(f"pool {pool}: {len(old)} server{'s are' if len(old) != 1 else ' is'} replaced, {surge} at a time")
    deadline = time.monotonic() + timeout_s
    left = old
    while (over := _outcome(instance, pool, last)) is None:
        scaled = _pool(instance, pool)
        now = _serving(scaled)
        if old & now != left:
            left = old & now
            click.echo(f"{len(old - left)} of {len(old)} replaced")
        if not (scaled.get("scaling") or {}).get("rolling") and _outcome(instance, pool, last) is None:
            raise click.ClickException(f"pool {pool}: the roll is over, and no event tells its outcome; see `prefork-lb status`")
        if time.monotonic() >= deadline:
            raise click.ClickException(f"pool {pool}: the servers are still being replaced after {timeout_s:g} s; that goes on")
        time.sleep(_LOOK_S)
    if over.text.startswith(GONE_BACK):
        click.echo(f"pool {pool}: {over.text}", err=True)
        sys.exit(Exit.KEPT)
    click.echo(f"pool {pool}: {over.text}")


def _pool(instance: Instance, name: str) -> Document:
    """The pool in the instance's document; empty when the instance does not have it any more."""
    return next((pool for pool in instance.document()["pools"] if pool["name"] == name), {})


def _serving(pool: Document) -> set[str]:
    """The servers that scaling has in the pool, without those that are about to go."""
    return {server["address"] for server in pool.get("servers", ())
            if server["source"] == "scaling" and server["state"] != "draining"}


def _outcome(instance: Instance, pool: str, last: int) -> Event | None:
    """The event that tells how the roll ended; None: it goes on."""
    return next((event for event in instance.events(last) if event.kind == EventKind.ROLLED and event.pool == pool), None)
