"""The command `prefork-lb`: one group, each command a file of this package."""
from __future__ import annotations

import click

from prefork_lb import __version__
from prefork_lb.cli.check import check
from prefork_lb.cli.demo import demo
from prefork_lb.cli.explain import explain
from prefork_lb.cli.run import run
from prefork_lb.cli.servers import COMMANDS
from prefork_lb.cli.simulate import simulate
from prefork_lb.cli.status import status
from prefork_lb.cli.traffic import traffic


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prefork-lb")
def main() -> None:
    """prefork_lb: an HTTP load balancer that runs under gunicorn's workers."""


for command in (check, run, status, traffic, demo, simulate, explain, *COMMANDS):
    main.add_command(command)
