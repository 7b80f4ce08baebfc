"""`prefork-lb drain`, `ready`, `maintenance`, `weight`, `limit`, `add`, `remove`: what operators do to servers."""
from __future__ import annotations

import time
from collections.abc import Callable

import click

from prefork_lb.cli.completion import complete_pool, complete_server
from prefork_lb.cli.instances import Instance, InstanceChoice, Key, Leftover, instance_options
from prefork_lb.cli.number import Number, weight_of, whole_number
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address
from prefork_lb.shared.table import MOST_CONNECTIONS

_WAIT_LOOK_S = 0.05
_SESSIONS_LOOK_S = 1.0
_TELL_S = 5.0

_server_argument = click.argument("server", shell_complete=complete_server)
_pool_option = click.option("--pool", metavar="NAME", shell_complete=complete_pool,
                            help="Only in this pool; without it, in every pool that has the server.")


def _keys_of(instance: Instance, server: str, pool: str | None) -> list[Key]:
    """The server in each pool that has it, or in the one that is named. Raises ClickException when it is in none."""
    there, address = instance.servers(), _canonical(server)
    found = [key for key in there if key[1] in (server, address) and pool in (None, key[0])]
    if not found:
        known = ", ".join(f"{name} (pool {of})" for of, name in sorted(there))
        raise click.ClickException(f"no server {shown(server)}{f' in pool {shown(pool)}' if pool else ''}; there are {known}")
    return found


def _canonical(server: str) -> str:
    try:
        return str(parse_address(server))
    except ValueError:
        return server  # not an address: looked for as it was typed


def _with_pools(server: str, keys: list[Key]) -> str:
    return f"{server} (pool {', '.join(pool for pool, _ in keys)})"


def _set_state(choice: InstanceChoice, state: str, server: str, pool: str | None, wait: bool, timeout_s: float) -> None:
    instance = choice.open()
    keys = _keys_of(instance, server, pool)
    leftover = instance.leftover(keys)
    for key in keys:
        instance.set_admin(*key, state)
    click.echo(f"{_with_pools(server, keys)}: {state}, {leftover.left() or '0 in flight'}")
    if wait:
        _wait(leftover, timeout_s)
        click.echo(f"{server}: {leftover.nothing()}")


def _wait(leftover: Leftover, timeout_s: float) -> None:
    """Wait until nothing is left, and print every few seconds what is. Raises ClickException after the timeout."""
    begun = told = time.monotonic()
    looked = begun - _SESSIONS_LOOK_S
    while True:
        now = time.monotonic()
        if not leftover.in_flight and now >= looked + _SESSIONS_LOOK_S:
            looked = now  # a look at sessions may go through a whole table
            if not leftover.left():
                return
        if now >= begun + timeout_s:
            if not (left := leftover.left(still=True)):
                return
            raise click.ClickException(f"{left} after {timeout_s:g} s")
        if now >= told + _TELL_S:
            told = now
            if left := leftover.left():
                click.echo(left)
        time.sleep(_WAIT_LOOK_S)


def _wait_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--timeout", "timeout_s", type=Number(min=0), default=300.0, show_default=True,
                           help="Seconds to wait at most; then the exit code is 1.")(command)
    return click.option("--wait", is_flag=True, help="Wait until nothing is left on it.")(command)


@click.command()
@_server_argument
@_pool_option
@instance_options
@_wait_options
def drain(choice: InstanceChoice, server: str, pool: str | None, wait: bool, timeout_s: float) -> None:
    """Send SERVER no new requests; those that it has go on, and so do its sessions in pools that keep them.

    With --wait it tells what is left: requests in flight, and sessions. Sessions that are not stored (the modes cookie and route)
    show by their requests: none counts as left once none has come for a minute, or for sticky.idle seconds where that is set.

    \b
    Examples:
      prefork-lb drain 10.0.0.1:8001 --wait && ssh 10.0.0.1 systemctl restart app
      prefork-lb drain 10.0.0.1:8001 --pool api
    """
    _set_state(choice, "drain", server, pool, wait, timeout_s)


@click.command()
@_server_argument
@_pool_option
@instance_options
@_wait_options
def maintenance(choice: InstanceChoice, server: str, pool: str | None, wait: bool, timeout_s: float) -> None:
    """Like drain, and SERVER is not checked any more.

    \b
    Examples:
      prefork-lb maintenance 10.0.0.1:8001 --wait --timeout 60
    """
    _set_state(choice, "maintenance", server, pool, wait, timeout_s)


@click.command()
@_server_argument
@_pool_option
@instance_options
def ready(choice: InstanceChoice, server: str, pool: str | None) -> None:
    """Let SERVER have requests again, after drain or maintenance.

    \b
    Examples:
      prefork-lb ready 10.0.0.1:8001
    """
    _set_state(choice, "ready", server, pool, wait=False, timeout_s=0)


@click.command()
@_server_argument
@click.argument("weight", metavar="WEIGHT")
@_pool_option
@instance_options
def weight(choice: InstanceChoice, server: str, weight: str, pool: str | None) -> None:
    """Give SERVER another WEIGHT (1 to 1000), or "default" for that of the configuration.

    \b
    Examples:
      prefork-lb weight 10.0.0.1:8001 3
      prefork-lb weight 10.0.0.1:8001 default
    """
    try:
        number = weight_of(weight)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="WEIGHT") from exc
    instance = choice.open()
    keys = _keys_of(instance, server, pool)
    for key in keys:
        instance.set_weight(*key, number)
    click.echo(f"{_with_pools(server, keys)}: weight {weight}")


@click.command()
@_server_argument
@click.argument("limit", metavar="LIMIT")
@_pool_option
@instance_options
def limit(choice: InstanceChoice, server: str, limit: str, pool: str | None) -> None:
    """Let SERVER have LIMIT requests in flight at most, "none" for any number, or "default" for the limit of the configuration.

    Requests beyond it get another server, or wait in the pool's queue if it has one.

    \b
    Examples:
      prefork-lb limit 10.0.0.1:8001 50
      prefork-lb limit 10.0.0.1:8001 none
    """
    number = {"default": None, "none": 0}[limit] if limit in ("default", "none") else whole_number(limit, MOST_CONNECTIONS)
    if number == 0 and limit != "none":
        raise click.BadParameter(f'{shown(limit)} is no limit; expected 1 to {MOST_CONNECTIONS}, "none" or "default"',
                                 param_hint="LIMIT")
    instance = choice.open()
    keys = _keys_of(instance, server, pool)
    for key in keys:
        instance.set_limit(*key, number)
    click.echo(f"{_with_pools(server, keys)}: limit {limit}")


@click.command()
@click.argument("server")
@click.option("--pool", metavar="NAME", required=True, shell_complete=complete_pool, help="The pool that it joins.")
@click.option("--weight", type=int, default=1, show_default=True, help="Its share of the load against the other servers.")
@click.option("--max-connections", type=int, default=0, help="The most requests in flight on it; 0: no limit.")
@click.option("--backup", is_flag=True, help="Use it only while no other server can be used.")
@instance_options
def add(choice: InstanceChoice, server: str, pool: str, weight: int, max_connections: int, backup: bool) -> None:
    """Add SERVER to a pool of the running instance, until it is removed.

    Checks of the pool begin at once. A reload keeps it; the state file, if there is one, keeps it over a restart.

    \b
    Examples:
      prefork-lb add 10.0.0.7:8001 --pool web
      prefork-lb add 10.0.0.8:8001 --pool web --weight 2 --max-connections 100
    """
    address = choice.open().add_server(pool, server, weight, max_connections, backup)
    click.echo(f"{address} (pool {pool}): added")


@click.command()
@_server_argument
@_pool_option
@instance_options
@_wait_options
def remove(choice: InstanceChoice, server: str, pool: str | None, wait: bool, timeout_s: float) -> None:
    """Remove SERVER: it gets no new requests, and those that it has finish.

    A server of the configuration is back after the next reload.

    \b
    Examples:
      prefork-lb remove 10.0.0.7:8001 --pool web --wait
    """
    instance = choice.open()
    keys = _keys_of(instance, server, pool)
    leftover = instance.leftover(keys)
    for key in keys:
        instance.remove_server(*key)
    click.echo(f"{_with_pools(server, keys)}: removed, {leftover.in_flight} in flight")
    if wait:
        _wait(leftover, timeout_s)
        click.echo(f"{server}: nothing in flight any more")
