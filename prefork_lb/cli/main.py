"""The command `prefork-lb`: what is typed, and which module does it."""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prefork_lb import __version__
from prefork_lb.cli.demo import DemoError, run_demo
from prefork_lb.cli.servers import COMMANDS
from prefork_lb.cli.status import status_command
from prefork_lb.cli.traffic import TrafficReport, check_url, send_traffic
from prefork_lb.config import Config, load, notices
from prefork_lb.config.load import LOCAL_FILE, SYSTEM_FILE
from prefork_lb.errors import ConfigError
from prefork_lb.gunicorn.settings import CONF_FILE

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prefork-lb")
def main() -> None:
    """prefork_lb: an HTTP load balancer that runs under gunicorn's workers."""


main.add_command(status_command)
for command in COMMANDS:
    main.add_command(command)


@main.command()
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Check a configuration: all its problems at once, or what it says.

    Without FILE the one that a start here would find. Exits 1 when there are problems.
    """
    try:
        config = load(file)
    except ConfigError as exc:
        fail(exc.problems)
    for notice in notices(config):
        click.echo(f"warning: {notice}", err=True)
    click.echo("\n".join(summary(config)))


def fail(problems: Sequence[str]) -> NoReturn:
    """Print the problems to stderr and exit 1."""
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", err=True)
    sys.exit(1)


def summary(config: Config) -> list[str]:
    """What the configuration comes to, in lines."""
    listen = config.listen
    lines = [f"{config.source}: good", f"listen: {', '.join(listen.bind)}, workers: {listen.worker_count()}"]
    for name, pool in config.pools.items():
        count = len(pool.servers)
        lines.append(f"pool {name}: {pool.policy}, {count} server{'s' if count != 1 else ''}")
        for server in pool.servers:
            limit = f", at most {server.max_connections} at once" if server.max_connections else ""
            lines.append(f"  {server.address}, weight {server.weight}{limit}{', backup' if server.backup else ''}")
    for route in config.routes:
        hosts, paths = ", ".join(route.hosts) or "any host", ", ".join(route.paths) or "any path"
        lines.append(f"route {hosts}; {paths} -> pool {route.pool}")
    if not config.routes:
        lines.append(f"no routes: everything -> pool {next(iter(config.pools))}")
    return lines


@main.command()
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
    """
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
    if policy is not None:
        os.environ["PREFORK_LB_POLICY"] = policy
    try:
        load()
    except ConfigError as exc:
        fail([problem.replace("$PREFORK_LB_SERVERS", "--server", 1) for problem in exc.problems])


@main.command()
@click.argument("url")
@click.option("--requests", "count", type=click.IntRange(min=1), default=200, show_default=True, help="How many.")
@click.option("--clients", type=click.IntRange(1, 1000), default=8, show_default=True, help="How many at once.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              help="Seconds to wait for a connection, and for each part of an answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def traffic(url: str, count: int, clients: int, timeout_s: float, as_json: bool) -> None:
    """Send requests to URL and show which server answered how often and how fast.

    A server is told by the field X-Served-By of its responses. Exits 1 when a request failed: no answer, or a status of
    400 or more. Ctrl-C shows what there is until then.
    """
    try:
        check_url(url)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="URL") from exc
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("requests", total=count)
        report = send_traffic(url, count, clients, timeout_s=timeout_s, on_answer=lambda answer: bar.advance(task))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
    else:
        show(report)
    if report.failed:
        sys.exit(1)
    if len(report.answers) < count:
        sys.exit(INTERRUPTED)


def show(report: TrafficReport) -> None:
    """The report for people."""
    answered = len(report.answers) - sum(report.errors.values())
    if answered:
        Console().print(report.table())
    rate = len(report.answers) / report.wall_s if report.wall_s else 0.0
    click.echo(f"{len(report.answers)} requests in {report.wall_s:.2f} s ({rate:.0f}/s), {report.failed} failed")
    for reason, times in report.errors.most_common():
        click.echo(f"no answer, {times} x {reason}")


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="The balancer's port on 127.0.0.1; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Worker processes of the balancer.")
def demo(port: int, workers: int) -> None:
    """Run three small app servers and the balancer before them, until Ctrl-C."""
    try:
        run_demo(port, workers, click.echo)
    except DemoError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo("The demo has ended.")
