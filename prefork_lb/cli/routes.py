"""`prefork-lb routes`: the routes of a configuration in the order in which they are tried."""
from __future__ import annotations

import click
from rich.table import Table

from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.cli.tables import print_table
from prefork_lb.config.load import find_and_load
from prefork_lb.config.routes import answer_in_words, conditions_in_words
from prefork_lb.errors import ConfigError
from prefork_lb.wiring.routes import make_router


@click.command()
@click.argument("file", required=False)
def routes(file: str | None) -> None:
    """List the routes of a configuration in the order in which they are tried.

    Without FILE the one that a start here would find. A request takes the first line whose host, path and conditions it meets.

    \b
    Examples:
      prefork-lb routes
      prefork-lb explain GET https://example.org/api
    """
    try:
        config, _ = find_and_load(file)
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
