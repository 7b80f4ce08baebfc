"""`prefork-lb top`: an instance, live, with keys to steer it."""
from __future__ import annotations

import contextlib
import sys
import time

import click
from rich.console import Console
from rich.live import Live

from prefork_lb.cli.instances import InstanceChoice, instance_options
from prefork_lb.cli.keyboard import keyboard
from prefork_lb.cli.top_screen import Screen

_LOOK_S = 1.0


@click.command()
@instance_options
def top(choice: InstanceChoice) -> None:
    """Show an instance live: its servers with state, load, rate, errors and latency.

    \b
    Keys:
      up, down or k, j   choose a server
      d, r, m            drain it, make it ready, put it under maintenance
      w                  set its weight
      s, S               sort by the next column; reverse the order
      /                  show the servers with a text in pool, address or state only
      q                  quit

    \b
    Examples:
      prefork-lb top
      prefork-lb top --url http://10.0.0.5:9900 --token-file token
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; in a pipe, `prefork-lb status --watch` tells the same")
    screen = Screen(choice.open())
    screen.look()
    console = Console(markup=False, emoji=False, highlight=False)
    with contextlib.suppress(KeyboardInterrupt, EOFError), keyboard() as keys, \
            Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + _LOOK_S
        while not screen.is_over:
            live.update(screen.frame(console.height), refresh=True)
            for key in keys.keys(max(0.0, due - time.monotonic())):
                screen.press(key)
            if time.monotonic() >= due:
                screen.look()
                due = time.monotonic() + _LOOK_S
