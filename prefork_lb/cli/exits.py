"""The exit codes of the commands; docs/cli.md has them as a table."""
from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from prefork_lb.words import count


class Exit(enum.IntEnum):
    """All but 128 + N, which says that the signal N has ended the command."""

    DONE = 0
    FAILED = 1  # the message on stderr says why; `config diff`: there are differences
    USAGE = 2  # also: `config diff` cannot compare
    KEPT = 3  # `reload`: the workers cannot use the new configuration; `roll`: new servers do not come up


def exit_with_problems(problems: Sequence[str]) -> NoReturn:
    """Print the problems of a configuration to stderr, and exit with FAILED."""
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(count(len(problems), "problem"), err=True)
    sys.exit(Exit.FAILED)
