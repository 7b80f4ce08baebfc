"""`prefork-lb routes`: the routes of a configuration in the order in which they are tried."""
from __future__ import annotations

import click
import msgspec
from rich.table import Table

from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.cli.local import local_instance
from prefork_lb.cli.tables import print_table
from prefork_lb.config.load import find_and_load
from prefork_lb.config.model import Config
from prefork_lb.config.routes import answer_in_words, conditions_in_words
from prefork_lb.errors import ConfigError
from prefork_lb.observe.splits import splits_in_force
from prefork_lb.wiring.routes import make_router


@click.command()
@click.argument("file", required=False)
@click.option("--running", is_flag=True, help="The routes of the running instance, with the weights of splits that are in force.")
@click.option("--master", type=int, metavar="PID", help="With --running: gunicorn's master, when several instances run.")
def routes(file: str | None, running: bool, master: int | None) -> None:
    """List the routes of a configuration in the order in which they are tried.

    Without FILE the one that a start here would find. A request takes the first line whose host, path and conditions it meets.

    \b
    Examples:
      prefork-lb routes
      prefork-lb routes --running
      prefork-lb explain GET https://example.org/api
    """
    if (file is not None and running) or (master is not None and not running):
        raise click.UsageError("FILE and --running: give one of them; --master goes with --running")
    try:
        config = _running(master) if running else find_and_load(file)[0]
    except ConfigError as exc:
        exit_with_problems(exc.problems)
    if not config.routes:
        click.echo(f"no routes: everything -> pool {next(iter(config.pools))}")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("host", "path", "conditions", "answered by", "in the file"):
        table.add_column(heading)
    try:
        router = make_router(config)
    except ConfigError as exc:
        exit_with_problems(exc.problems)
    for host, path, route in router.in_order():
        number = router.routes.index(route)
        written = config.routes[number]
        table.add_row(host or "any", path or "any", "; ".join(conditions_in_words(written)) or "-", answer_in_words(written),
                      f"routes[{number}]")
    print_table(table, folds="conditions")


def _running(master: int | None) -> Config:
    """The configuration in force, with the weights of splits that are in force."""
    instance = local_instance(master)
    config = instance.configuration()
    instance.enter_folder()
    routes = list(config.routes)
    for found in splits_in_force(instance.segment, config):
        place = found.split.place - 1
        routes[place] = msgspec.structs.replace(routes[place], split=dict(found.weights))
    return msgspec.structs.replace(config, routes=tuple(routes))
