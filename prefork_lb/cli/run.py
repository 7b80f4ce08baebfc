"""`prefork-lb run`: becomes gunicorn's master, with servers of a file or of the command line."""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.config.load import LOCAL_FILE, SYSTEM_FILE, load
from prefork_lb.errors import ConfigError
from prefork_lb.gunicorn.settings import CONF_FILE


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="The configuration; without it, the one found here.")
@click.option("--server", "servers", multiple=True, metavar="ADDRESS",
              help='A server, with no file at all: HOST:PORT, or "HOST:PORT weight=2". May be repeated.')
@click.option("--policy", metavar="NAME", help="The policy for --server; without it, least-connections.")
@click.option("--bind", "binds", multiple=True, metavar="ADDRESS", help="Where to listen. May be repeated.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes.")
@click.argument("gunicorn_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- GUNICORN OPTIONS]")
def run(
    config_file: str | None,
    servers: tuple[str, ...],
    policy: str | None,
    binds: tuple[str, ...],
    workers: int | None,
    gunicorn_arguments: tuple[str, ...],
) -> None:
    """Start the balancer: this process becomes gunicorn's master.

    The same as `gunicorn prefork_lb:app` in a folder with gunicorn.conf.py; what stands after -- goes to gunicorn.

    \b
    Examples:
      prefork-lb run --config /etc/prefork-lb/prefork_lb.toml
      prefork-lb run --server 127.0.0.1:8001 --server "127.0.0.1:8002 weight=2" --bind 127.0.0.1:8000
      prefork-lb run -- --access-logfile -
    """
    if config_file == "":
        raise click.UsageError("--config: the file's name is empty")
    if not all(server.strip() for server in servers):
        raise click.UsageError("--server: an address is empty")
    if servers and config_file is not None:
        raise click.UsageError("--server and --config: give one of them; the file has its own servers")
    if policy is not None and not servers:
        raise click.UsageError("--policy goes with --server; in a file it is the pool's `policy`")
    if gunicorn_arguments and not gunicorn_arguments[0].startswith("-"):
        raise click.UsageError(f"{gunicorn_arguments[0]!r} is no option; gunicorn's options stand after --")
    if config_file is not None:
        os.environ["PREFORK_LB_CONFIG"] = config_file
    if servers:
        use_servers(servers, policy)
    arguments = [sys.executable, "-m", "gunicorn", "-c", f"file:{CONF_FILE}"]
    for bind in binds:
        arguments += ["--bind", bind]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    sys.stdout.flush()
    os.execv(sys.executable, [*arguments, *gunicorn_arguments, "prefork_lb:app"])


def use_servers(servers: Sequence[str], policy: str | None) -> None:
    """Put the servers where the configuration is looked for, in the environment. Exits when they would not count."""
    for file in filter(os.path.exists, (LOCAL_FILE, SYSTEM_FILE)):
        raise click.UsageError(
            f"--server: {file} is there, and a file goes before servers without one; "
            f"leave --server away to start with it, or move it"
        )
    os.environ.pop("PREFORK_LB_CONFIG", None)
    os.environ["PREFORK_LB_SERVERS"] = ",".join(servers)
    os.environ.pop("PREFORK_LB_POLICY", None)
    if policy is not None:
        os.environ["PREFORK_LB_POLICY"] = policy
    try:
        load()
    except ConfigError as exc:
        exit_with_problems([problem.replace("$PREFORK_LB_SERVERS", "--server", 1).replace("$PREFORK_LB_POLICY", "--policy", 1)
              for problem in exc.problems])
