"""The command `prefork-lb`: one group, whose commands are in the files of this package."""
from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from importlib import import_module
from typing import Any

import click

from prefork_lb import __version__

# The module of each command. Only the module of the command that runs is loaded: the libraries for requests and tables take a
# tenth of a second, and `drain` and `check` need neither.
MODULES = {
    "check": "check",
    "config": "config",
    "events": "events",
    "reload": "reload",
    "routes": "routes",
    "run": "run",
    "status": "status",
    "top": "top",
    "traffic": "traffic",
    "demo": "demo",
    "log": "log",
    "simulate": "simulate",
    "explain": "explain",
    "drain": "servers",
    "ready": "servers",
    "maintenance": "servers",
    "weight": "servers",
    "limit": "servers",
    "add": "servers",
    "remove": "servers",
    "scale": "scale",
    "split": "split",
    "roll": "roll",
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Commands(click.Group):
    """A group that loads a command when it is asked for. A command is a function of its own name in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        command: click.Command = getattr(import_module(f"prefork_lb.cli.{MODULES[cmd_name]}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as exc:
            # click handles a closed pipe (EPIPE). When the output fails, the work of the command has already been done.
            if exc.errno not in _FULL or exc.filename is not None:
                raise
            _drop_output()
            raise click.ClickException(f"the output cannot be written: {exc.strerror}") from exc


def _drop_output() -> None:
    """Send what is buffered for the output to /dev/null: Python would try to write it once more at its end, and exit with 120."""
    with contextlib.suppress(io.UnsupportedOperation):  # no real file, as in a test
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prefork-lb")
def main() -> None:
    """prefork_lb: an HTTP load balancer that runs under gunicorn's workers."""
