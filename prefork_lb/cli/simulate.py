"""`prefork-lb simulate`: a load, from an access log or described, against each policy, on virtual time."""
from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prefork_lb.balance.policy import PolicyOptions
from prefork_lb.balance.registry import POLICY_NAMES, own_policy_class
from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.cli.number import Number
from prefork_lb.cli.own_policies import find_own_policies
from prefork_lb.cli.tables import print_table
from prefork_lb.config.load import find_and_load
from prefork_lb.config.pool import PoolConfig
from prefork_lb.errors import ConfigError
from prefork_lb.simulate.access_log import LogError, read_log
from prefork_lb.simulate.comparison import DEFAULT_POLICIES, Recommendation, Scene, averages, compare, recommend
from prefork_lb.simulate.ejection import EjectionModel
from prefork_lb.simulate.figures import Figures
from prefork_lb.simulate.load import DescribedLoad, Load
from prefork_lb.simulate.picture import svg
from prefork_lb.simulate.servers import DescribedServer, Trouble, check_troubles, parse_server, parse_trouble
from prefork_lb.simulate.service_times import ServiceTimes, parse_service_times
from prefork_lb.words import count

_LARGE = 200_000  # requests of a log beyond which one run is enough
_RUNS = 5
_DEFAULT_SERVERS = 4


@dataclass(frozen=True, slots=True)
class _Pool:
    """The servers, and what belongs to their pool."""

    servers: Sequence[DescribedServer]
    queue_size: int = 0
    queue_timeout_s: float = 0.0
    options: PolicyOptions = PolicyOptions()
    ejection: EjectionModel = EjectionModel()
    key: str = "source"
    policy: str = ""


@click.command()
@click.argument("log", required=False, metavar="[LOG]")
@click.option("--rate", type=Number(0.001, 1_000_000), metavar="N", help="Requests a second, at random (Poisson).")
@click.option("--requests", type=click.IntRange(1, 10_000_000), default=20_000, show_default=True, help="Of a described load.")
@click.option("--service", metavar="TIMES", help='How long a server takes: "constant:30ms", "exponential:30ms", '
              '"lognormal:30ms,1" (mean, sigma) or "pareto:30ms,2.5" (mean, exponent). With a LOG: in place of what it says.')
@click.option("--speed", type=Number(0.001, 1_000_000), default=1.0, show_default=True,
              help="Let the LOG go by so many times as fast: 2 is twice the traffic.")
@click.option("--servers", "alike", type=click.IntRange(1, 1000),
              help=f"So many servers that are alike: a, b, ...  [{_DEFAULT_SERVERS}]")
@click.option("--server", "described", multiple=True, metavar="TEXT",
              help='One server: "a weight=2 workers=4 max_connections=20".')
@click.option("--pool", "pool_name", metavar="NAME", help="The servers, limits and queue of this pool of the configuration.")
@click.option("--config", "config_file", metavar="FILE",
              help="The configuration; without it the one that a start here would find.")
@click.option("--workers", type=click.IntRange(0, 1_000_000), default=8, show_default=True,
              help="Requests that a server works on at once; the others wait at it. 0: no limit.")
@click.option("--when", "troubles", multiple=True, metavar="TEXT",
              help='"b slow 10 from 5s to 20s", "b fail in 1ms from 5s to 10s", "b stall from 5s to 7s".')
@click.option("--ejection/--no-ejection", default=True, show_default=True,
              help="Let failures eject a server, by the pool's rules or the default ones.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Only this policy; may be given several times.")
@click.option("--runs", type=click.IntRange(1, 100), help=f"Runs of each policy, from which the noise is known.  [{_RUNS}; 1 for "
              f"logs of more than {_LARGE:,} requests]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write a picture.")
def simulate(log: str | None, rate: float | None, requests: int, service: str | None, speed: float, alike: int | None,
             described: tuple[str, ...], pool_name: str | None, config_file: str | None, workers: int, troubles: tuple[str, ...],
             ejection: bool, policies: tuple[str, ...], runs: int | None, as_json: bool, svg_file: str | None) -> None:
    """Try a load on each policy, on virtual time, and say which policy to choose.

    The load is an access LOG ("-": standard input) in the common or combined format or in JSON, or it is described by --rate and
    --service. Health checks and retries are left out: it is the policies that are compared.

    \b
    Examples:
      prefork-lb simulate access.log --pool web --workers 8
      zcat access.log.*.gz | prefork-lb simulate - --servers 6 --speed 2
      prefork-lb simulate --rate 300 --service exponential:30ms --when "b slow 10 from 10s to 40s"
    """
    find_own_policies()
    pool = _pool(alike, described, pool_name, config_file, workers)
    names = policies or (*DEFAULT_POLICIES, *({pool.policy} - {*DEFAULT_POLICIES, ""}))
    try:
        for name in names:
            if name not in POLICY_NAMES:
                own_policy_class(name)
        found_troubles = _troubles(troubles, [server.name for server in pool.servers])
        load = _load(log, rate, requests, _service(service) if service else None, speed)
    except ValueError as exc:
        raise click.ClickException(str(exc)) from exc
    scene = Scene(load, pool.servers, found_troubles, pool.queue_size, pool.queue_timeout_s, pool.options,
                  pool.ejection if ejection else None, pool.key)
    if runs is None:
        runs = _RUNS if not log or load.requests <= _LARGE else 1
    results = _compare(scene, list(dict.fromkeys(names)), runs)
    means, choice = averages(results), recommend(results)
    if svg_file:
        try:
            Path(svg_file).write_text(svg(means, _title(scene, troubles), choice.policy))
        except OSError as exc:
            raise click.ClickException(f"{svg_file}: {exc.strerror}") from exc
    if as_json:
        click.echo(json.dumps(_as_dict(scene, troubles, runs, means, choice), indent=1))
    else:
        _show(scene, troubles, runs, means, choice)


def _troubles(texts: Sequence[str], names: Sequence[str]) -> list[Trouble]:
    try:
        troubles = [parse_trouble(text, names) for text in texts]
        check_troubles(troubles)
    except ValueError as exc:
        raise click.ClickException(f"--when: {exc}") from exc
    return troubles


def _service(text: str) -> ServiceTimes:
    try:
        return parse_service_times(text)
    except ValueError as exc:
        raise click.ClickException(f"--service: {exc}") from exc


def _pool(alike: int | None, described: Sequence[str], pool_name: str | None, config_file: str | None, workers: int) -> _Pool:
    if sum((alike is not None, bool(described), bool(pool_name or config_file))) > 1:
        raise click.UsageError("--servers, --server and --pool: give one of them")
    if pool_name or config_file:
        return _configured(pool_name, config_file, workers)
    try:
        servers = [parse_server(text, workers) for text in described] or [
            DescribedServer(_letters(number), workers=workers) for number in range(alike or _DEFAULT_SERVERS)]
    except ValueError as exc:
        raise click.ClickException(f"--server: {exc}") from exc
    if len({server.name for server in servers}) < len(servers):
        raise click.ClickException("--server: two servers have one name")
    if all(server.backup for server in servers):
        raise click.ClickException("--server: every server is a backup; at least one must not be")
    return _Pool(servers)


def _configured(pool_name: str | None, config_file: str | None, workers: int) -> _Pool:
    try:
        config = find_and_load(config_file).config
    except ConfigError as exc:
        exit_with_problems(exc.problems)
    name = pool_name or next(iter(config.pools))
    if name not in config.pools:
        raise click.ClickException(f"no pool {name!r} in {config.source}; there are {', '.join(config.pools)}")
    pool: PoolConfig = config.pools[name]
    servers = [DescribedServer(server.address, server.weight, workers, server.max_connections, server.backup)
               for server in pool.servers]
    rules = pool.ejection
    return _Pool(servers, pool.queue.size if pool.queue else 0, pool.queue.timeout if pool.queue else 0.0,
                 PolicyOptions(pool.load_factor, load=pool.load, compatible=pool.compatible),
                 EjectionModel(rules.failures, rules.seconds, rules.max_seconds, rules.max_ejected, rules.penalty),
                 pool.key or "source", pool.policy)


def _letters(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"s{number + 1}"


def _load(log: str | None, rate: float | None, requests: int, service: ServiceTimes | None, speed: float) -> Load:
    if log is None:
        if rate is None or service is None:
            raise click.UsageError("give an access LOG, or --rate and --service")
        return DescribedLoad(rate, service, requests)
    if rate is not None:
        raise click.UsageError("--rate goes without a LOG; --speed changes the rate of one")
    try:
        with nullcontext(sys.stdin.buffer) if log == "-" else open(log, "rb") as lines:
            found = read_log(lines)
    except OSError as exc:
        raise click.ClickException(f"{log}: {exc.strerror}") from exc
    try:
        load = found.load(service, speed)
    except LogError as exc:
        raise click.ClickException(f"{log}: {exc}") from exc
    if found.notice:
        click.echo(f"warning: {log}: {found.notice}", err=True)
    return load


def _compare(scene: Scene, policies: list[str], runs: int) -> dict[str, list[Figures]]:
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("runs", total=len(policies) * runs)
        try:
            return compare(scene, policies, range(runs), lambda: bar.advance(task))
        except ValueError as exc:
            raise click.ClickException(str(exc)) from exc


def _title(scene: Scene, troubles: Sequence[str]) -> str:
    load = scene.load.as_dict()
    text = f"{scene.load.rate:.4g} requests/s, service {load['service']}, {count(len(scene.servers), 'server')}"
    return "; ".join([text, *troubles])


def _show(scene: Scene, troubles: Sequence[str], runs: int, means: dict[str, Figures], choice: Recommendation) -> None:
    workers = sorted({server.workers for server in scene.servers})
    each = f"of {workers[0]} workers each" if len(workers) == 1 and workers[0] else (
        "without a limit of workers: no request ever waits at one" if workers == [0] else "")
    click.echo(f"{_title(scene, troubles)} {each}".rstrip())
    click.echo(f"{scene.load.requests} requests, {count(runs, 'run')} of each policy")
    use = scene.use
    if use is not None:
        click.echo(f"the load takes {use:.0%} of what the servers can do" + (
            "; times grow for as long as it lasts" if use >= 1 else ""))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("policy")
    for heading in ("mean ms", "p50 ms", "p99 ms", "spread", "most in flight", "longest queue", "failed", "refused"):
        table.add_column(heading, justify="right")
    for policy, found in means.items():
        table.add_row(policy, *(f"{1000 * seconds:.1f}" for seconds in (found.mean_s, found.p50_s, found.p99_s)),
                      f"{found.spread:.2f}", *map(str, (found.most_in_flight, found.longest_queue, found.failed, found.refused)))
    print_table(table, folds="policy")
    click.echo(f"choose {choice.policy}" + (":" if choice.why else ": it is the only one"))
    for sentence in choice.why:
        click.echo(f"  {sentence}")
    if runs == 1 and len(means) > 1:
        click.echo("  with one run the noise is not known; differences below 5 % count as none")


def _as_dict(scene: Scene, troubles: Sequence[str], runs: int, means: dict[str, Figures],
             choice: Recommendation) -> dict[str, object]:
    return {
        "load": scene.load.as_dict(),
        "servers": [{"name": server.name, "weight": server.weight, "workers": server.workers,
                     "max_connections": server.max_connections, "backup": server.backup} for server in scene.servers],
        "troubles": list(troubles),
        "ejection": scene.ejection is not None,
        "use": None if scene.use is None else round(scene.use, 4),
        "runs": runs,
        "policies": [{
            "policy": policy, "mean_ms": round(1000 * found.mean_s, 3), "p50_ms": round(1000 * found.p50_s, 3),
            "p99_ms": round(1000 * found.p99_s, 3), "spread": round(found.spread, 4), "most_in_flight": found.most_in_flight,
            "longest_queue": found.longest_queue, "most_waiting": found.most_waiting, "requests": found.requests,
            "failed": found.failed, "refused": found.refused,
            "shares": {server.name: round(share, 5) for server, share in zip(scene.servers, found.shares, strict=True)},
        } for policy, found in means.items()],
        "choice": {"policy": choice.policy, "why": list(choice.why), "equal": list(choice.equal)},
    }
