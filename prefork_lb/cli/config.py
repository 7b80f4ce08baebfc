"""`prefork-lb config diff`: a file against the configuration in force."""
from __future__ import annotations

import sys
from typing import NoReturn

import click
import msgspec

from prefork_lb.cli.exits import Exit
from prefork_lb.cli.instances import Instance, InstanceChoice, instance_options
from prefork_lb.cli.local import LocalInstance
from prefork_lb.config.difference import differences
from prefork_lb.config.load import find_and_load
from prefork_lb.config.masked import masked
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError
from prefork_lb.wiring.reloading import file_in_force


@click.group()
def config() -> None:
    """Look at an instance's configuration."""


@config.command()
@instance_options
@click.argument("file", required=False, type=click.Path())
def diff(choice: InstanceChoice, file: str | None) -> None:
    """Tell how FILE differs from the configuration in force: what a reload would change.

    Without FILE it is the one by which the instance runs. Exits with 0 when both say the same, 1 when they differ, and 2 when
    they cannot be compared.

    \b
    Examples:
      prefork-lb config diff                     what has been edited since the last reload
      prefork-lb config diff new.toml            what another file would change
      prefork-lb config diff lb.toml --url http://10.0.0.5:9900 --token-file token
    """
    try:
        instance = choice.open()
        in_force = instance.configuration()
        wanted = find_and_load(file)[0] if file is not None else _file_of(instance)
        if choice.url is not None:  # the API shows no secrets
            wanted = msgspec.convert(masked(wanted), Config)
    except ConfigError as exc:
        _fail(str(exc))
    except click.ClickException as exc:
        _fail(exc.format_message())
    found = differences(in_force, wanted)
    click.echo("\n".join(found) if found else f"{wanted.source}: no difference")
    sys.exit(Exit.FAILED if found else Exit.DONE)


def _file_of(instance: Instance) -> Config:
    if not isinstance(instance, LocalInstance):
        raise click.UsageError("with --url the FILE is needed: that of the instance is on another host")
    instance.enter_folder()
    found = file_in_force(instance.segment)
    if found is None:
        raise click.UsageError("the instance runs by variables of its environment; give a FILE")
    return found


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(Exit.USAGE)
