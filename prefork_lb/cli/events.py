"""`prefork-lb events`: what has happened lately in an instance, and what happens."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import time

import click

from prefork_lb.cli.instances import InstanceChoice, instance_options
from prefork_lb.shared.events import Event

_LOOK_S = 0.25
_KIND_WIDTH = 18


def line_of(event: Event) -> str:
    """An event as a line for people."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    where = " ".join(filter(None, (event.pool, event.server)))
    by = f"  ({event.who})" if event.who and event.who not in event.text else ""
    return f"{when}  {event.kind:<{_KIND_WIDTH}}  {where + ': ' if where else ''}{event.text}{by}"


@click.command()
@instance_options
@click.option("--follow", "-f", is_flag=True, help="Go on with new ones as they come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def events(choice: InstanceChoice, follow: bool, as_json: bool) -> None:
    """Show what has happened lately: servers up, down, ejected and back, operators' changes, reloads, workers, limits.

    An instance remembers its last 256 events.

    \b
    Examples:
      prefork-lb events                          all that are known, oldest first
      prefork-lb events --follow                 and those that come
      prefork-lb events --json | jq 'select(.kind == "server-down")'
    """
    instance = choice.open()
    last = 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for event in instance.events(last):
                click.echo(json.dumps(dataclasses.asdict(event)) if as_json else line_of(event))
                last = event.seq
            if not follow:
                return
            time.sleep(_LOOK_S)
