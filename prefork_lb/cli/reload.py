"""`prefork-lb reload`: let an instance load its configuration again, and see whether it took."""
from __future__ import annotations

import sys
import time

import click

from prefork_lb.cli.exits import Exit
from prefork_lb.cli.instances import Document, Instance, InstanceChoice, instance_options
from prefork_lb.cli.number import Number
from prefork_lb.shared.events import Event, EventKind
from prefork_lb.wiring.membership import REFUSED
from prefork_lb.words import count

_LOOK_S = 0.1


@click.command()
@instance_options
@click.option("--timeout", "timeout_s", type=Number(min=0), default=60.0, show_default=True,
              help="Seconds to wait at most for the new workers; then the exit code is 1.")
def reload(choice: InstanceChoice, timeout_s: float) -> None:
    """Check the instance's file, let new workers go by it, and tell what changed and whether it took.

    A file with problems changes nothing: they are shown, and the exit code is 1. When the new workers could not use the
    configuration and go on with the one before, the exit code is 3.

    \b
    Examples:
      prefork-lb config diff; prefork-lb reload
      prefork-lb reload --url http://10.0.0.5:9900 --token-file token
    """
    instance = choice.open()
    before = _serving(instance.document())
    last = max((event.seq for event in instance.events(0)), default=0)
    instance.reload()
    began = time.monotonic()
    since: list[Event] = []  # collected: hundreds of servers that come up push the first ones out of the instance's memory
    while True:
        try:
            now = _serving(instance.document())
            since += instance.events(since[-1].seq if since else last)
        except click.ClickException:
            # A reload that changes [admin] restarts the interface that answers.
            if choice.url is None or time.monotonic() >= began + timeout_s:
                raise
            time.sleep(_LOOK_S)
            continue
        left = before & now
        if now and not left and now <= _started(since):
            break
        if time.monotonic() >= began + timeout_s:
            what = f"{len(left)} of {len(before)} workers of before still serve" if left else "the new workers have not begun"
            raise click.ClickException(f"{instance.name}: after {timeout_s:g} s {what}")
        time.sleep(_LOOK_S)
    _tell(instance, since, len(now), time.monotonic() - began)


def _serving(document: Document) -> set[str]:
    """The workers that were not replaced, as events name them."""
    return {f"worker {worker['pid']}" for worker in document["workers"] if not worker["lingers_s"]}


def _started(events: list[Event]) -> set[str]:
    """The workers that have put their configuration into force."""
    return {event.who for event in events if event.kind == EventKind.WORKER_STARTED}


def _tell(instance: Instance, since: list[Event], workers: int, seconds: float) -> None:
    """Say what a reload that is over has changed. Exits when the configuration was not taken."""
    told = [event.text for event in since if event.kind == EventKind.RELOAD]
    kept = [text for text in told if text.startswith(REFUSED)]
    if kept:
        click.echo(f"{instance.name}: {kept[-1]}", err=True)
        sys.exit(Exit.KEPT)
    for text in told or ["the configuration says the same as before"]:
        click.echo(text)
    click.echo(f"{instance.name}: {count(workers, 'new worker')} after {seconds:.1f} s")
