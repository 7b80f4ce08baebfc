"""`prefork-lb scale`: sets the number of servers of a pool that the balancer starts itself."""
from __future__ import annotations

import click

from prefork_lb.cli.completion import complete_pool
from prefork_lb.cli.instances import InstanceChoice, instance_options
from prefork_lb.errors import shown


@click.command()
@click.argument("pool", shell_complete=complete_pool)
@click.argument("servers", metavar="N|auto")
@instance_options
def scale(choice: InstanceChoice, pool: str, servers: str) -> None:
    """Have N servers in POOL, whatever its load, or "auto": as many as its rule wants.

    It stays so over reloads and upgrades, until "auto" or another number is set. A restart forgets it.

    \b
    Examples:
      prefork-lb scale app 6
      prefork-lb scale app auto
    """
    if servers != "auto" and not (servers.isascii() and servers.isdigit() and len(servers) <= 9):
        raise click.BadParameter(f'{shown(servers)} is no number of servers; expected one like 4, or "auto"', param_hint="N|auto")
    choice.open().scale(pool, None if servers == "auto" else int(servers))
    click.echo(f"pool {pool}: {servers if servers == 'auto' else f'{int(servers)} servers'}")
