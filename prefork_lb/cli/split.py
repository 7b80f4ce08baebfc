"""`prefork-lb split`: shows the splits of routes, and sets their weights."""
from __future__ import annotations

import click

from prefork_lb.cli.instances import Document, InstanceChoice, instance_options
from prefork_lb.cli.number import whole_number
from prefork_lb.errors import shown
from prefork_lb.shared.split_weights import MOST_SPLIT_WEIGHT


@click.command()
@click.argument("route", required=False, type=int)
@click.argument("weights", nargs=-1, metavar="[POOL=WEIGHT]...")
@instance_options
def split(choice: InstanceChoice, route: int | None, weights: tuple[str, ...]) -> None:
    """Set weights of the split of ROUTE, which is the number that the first column has; without weights, show the splits.

    Pools that are not named keep their weight. 0: the pool gets no request; "default": the weight of the configuration. It stays
    so over reloads and upgrades, while the route asks for the same, and with a state file over restarts.

    \b
    Examples:
      prefork-lb split
      prefork-lb split 3 stable=80 canary=20
      prefork-lb split 3 stable=default canary=default
    """
    wanted = dict(map(_weight, weights))
    instance = choice.open()
    splits = [found for found in instance.document()["splits"] if route in (None, found["route"])]
    if not splits:
        raise click.ClickException(f"route {route} has no split; prefork-lb split shows those that have one" if route is not None
                                   else "no route has a split")
    if wanted:
        instance.set_split(splits[0], wanted)
        splits = [found for found in instance.document()["splits"] if found["id"] == splits[0]["id"]]
    for found in splits:
        click.echo(split_in_words(found))


def split_in_words(found: Document) -> str:
    """A split in a line: the number of the route, the weights in force, and what the route asks for."""
    configured = found["weights_configured"]
    parts = [f"{pool} {weight}" + (f" (configured: {configured[pool]})" if weight != configured[pool] else "")
             for pool, weight in found["weights"].items()]
    return f"route {found['route']}: {', '.join(parts)}: {found['asks']}"


def _weight(text: str) -> tuple[str, int | None]:
    pool, _, weight = text.partition("=")
    if pool and weight == "default":
        return pool, None
    number = whole_number(weight, MOST_SPLIT_WEIGHT)
    if not pool or not (number or weight == "0"):
        raise click.BadParameter(f'{shown(text)}: expected a pool and its weight, 0 to {MOST_SPLIT_WEIGHT}, as canary=20, or '
                                 "canary=default", param_hint="POOL=WEIGHT")
    return pool, number
