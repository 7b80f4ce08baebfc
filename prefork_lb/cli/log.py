"""`prefork-lb log`: the access log read back."""
from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import click
from rich.table import Table

from prefork_lb.cli.running import running_segment
from prefork_lb.cli.tables import print_table
from prefork_lb.errors import printable
from prefork_lb.logs.figures import LogFigures
from prefork_lb.logs.reading import Entry, Reader, Wanted, duration_s, follow_file, lines_of, moment, statuses
from prefork_lb.observe.configuration import configuration_of

_MOST_PATHS = 10
_Parsed = TypeVar("_Parsed")


def _read_by(parse: Callable[[str], _Parsed]) -> Callable[[click.Context, click.Parameter, str | None], _Parsed | None]:
    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> _Parsed | None:
        try:
            return None if value is None else parse(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from exc

    return read


def _all_statuses(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[range, ...]:
    try:
        return tuple(statuses(part) for value in values for part in value.split(","))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command(epilog="""\b
Examples:
  prefork-lb log --status 5xx --since 15m        what failed in the last quarter of an hour
  prefork-lb log --request 7f3a90c1              why this request got its answer
  prefork-lb log --slow 500ms --follow           slow requests as they end
  prefork-lb log --summary access.log.1.gz       slowest paths, errors by server""")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--status", "wanted_statuses", multiple=True, metavar="502|5xx|500-504", callback=_all_statuses,
              help="Only answers with these statuses.")
@click.option("--pool", default="", help="Only requests of this pool.")
@click.option("--server", default="", help="Only requests that this server answered, or failed to.")
@click.option("--path", default="", help="Only targets that begin so.")
@click.option("--client", default="", help="Only requests of this address.")
@click.option("--since", metavar="15m|TIME", callback=_read_by(lambda text: moment(text, datetime.now(UTC))),
              help="Only requests that ended so long ago at most, or after this time.")
@click.option("--slow", "slow_s", metavar="500ms", callback=_read_by(duration_s), help="Only requests that took so long.")
@click.option("--request", default="", metavar="ID",
              help="The request with this ID, or of this trace, with all that is known of it.")
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on with what comes, over rotations.")
@click.option("--summary", "as_summary", is_flag=True, help="Percentiles, slowest paths, errors by server.")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are in the log.")
@click.option("--master", type=int, metavar="PID", help="Of which instance, if several run: its gunicorn master.")
def log(files: tuple[str, ...], wanted_statuses: tuple[range, ...], pool: str, server: str, path: str, client: str,
        since: str | None, slow_s: float | None, request: str, follows: bool, as_summary: bool, as_json: bool,
        master: int | None) -> None:
    """Read an access log in JSON back: FILEs, also compressed ones and "-", or the log of the instance that runs."""
    names = files or (_log_of_instance(master),)
    if follows and (len(names) > 1 or names[0] == "-" or as_summary):
        raise click.UsageError("--follow is for one file, and not for a summary")
    wanted = Wanted(wanted_statuses, pool, server, path, client, since or "", (slow_s or 0.0) * 1000, request)
    reader = Reader()
    found = _matching(_lines(names, follows), reader, wanted)
    if as_summary:
        figures = LogFigures()
        for _, entry in found:
            figures.add(entry)
        _print_summary(figures)
    else:
        _print_all(found, as_json, as_story=bool(request))
    if reader.bad:
        lines = "line is" if reader.bad == 1 else "lines are"
        click.echo(f"{reader.bad} {lines} no JSON of an access log, and left out", err=True)


def _log_of_instance(master: int | None) -> str:
    segment = running_segment(master)
    try:
        config, masters = configuration_of(segment), segment.masters()
    finally:
        segment.close()
    if config is None or not config.log.access:
        raise click.ClickException("the instance writes no access log ([log] access); name a FILE")
    if config.log.format != "json":
        raise click.ClickException(f"the instance's access log has the format {config.log.format!r}; this command reads JSON")
    name = config.log.access
    if name == "-" or name.startswith(("syslog:", "journald:")):
        raise click.ClickException(f"the instance's access log goes to {name}; hand its lines over: ... | prefork-lb log -")
    return os.path.join(f"/proc/{masters[-1]}/cwd", name)  # a path that is not absolute counts from where gunicorn runs


def _lines(names: Sequence[str], follows: bool) -> Iterator[bytes]:
    for name in names:
        try:
            yield from follow_file(name, _wait) if follows else lines_of(name)
        except OSError as exc:
            raise click.ClickException(f"{name}: {exc.strerror or exc}") from exc


def _wait(seconds: float) -> None:
    sys.stdout.flush()
    time.sleep(seconds)


def _matching(lines: Iterable[bytes], reader: Reader, wanted: Wanted) -> Iterator[tuple[bytes, Entry]]:
    for line in lines:
        for entry in reader.entries((line,)):
            if wanted.matches(entry):
                yield line, entry


def _print_all(found: Iterable[tuple[bytes, Entry]], as_json: bool, as_story: bool) -> None:
    try:
        for line, entry in found:
            if as_json:
                click.echo(line.rstrip(b"\n"))
            else:
                click.echo(_story(entry) if as_story else _one_line(entry))
    except KeyboardInterrupt:  # the end of --follow
        pass


def _url(entry: Entry) -> str:
    target = str(entry.get("target", "-"))
    return f"{entry.get('scheme', 'http')}://{entry['host']}{target}" if "host" in entry else target


def _one_line(entry: Entry) -> str:
    words = [entry["time"], str(entry["status"]), entry.get("method", "-"), _url(entry), entry.get("pool", "-"),
             entry.get("server", "-"), f"{entry.get('total_ms', 0):.1f}ms", entry.get("request_id", "-"),
             entry.get("ending", "-")]
    text = " ".join(map(str, words))
    return printable(f"{text}: {entry['error']}" if "error" in entry else text)


def _story(entry: Entry) -> str:
    """All that is known of one request, in words, the reason of its status first."""
    ending = entry.get("ending", "")
    lines = [f"{entry['time']} {entry.get('method')} {_url(entry)}: {entry['status']}, {ending}"]
    if "error" in entry:
        lines.append(f"  why: {entry['error']}")
    lines += [f"  failed attempt: {failure}" for failure in entry.get("failures", ())]
    if "server" in entry:
        lines.append(f"  server: {entry['server']} of the pool {entry.get('pool')}, picked by: {entry.get('picked')}; "
                     f"session: {entry.get('session')}")
    else:
        lines.append(f"  server: none; pool: {entry.get('pool', 'none')}")
    lines.append(f"  attempts: {entry.get('attempts')}, of them {entry.get('retries')} at another server")
    phases = [f"{name} {entry[key]:g} ms" for name, key in (("queue", "queue_ms"), ("connect", "connect_ms"),
                                                          ("first byte", "first_byte_ms"), ("total", "total_ms")) if key in entry]
    lines.append(f"  time: {', '.join(phases)}")
    lines.append(f"  bytes: {entry.get('bytes_in')} in, {entry.get('bytes_out')} out")
    lines.append(f"  client: {entry.get('client', 'of a unix socket')}, {entry.get('user_agent', 'no User-Agent')}")
    ids = [f"{key} {entry[key]}" for key in ("request_id", "trace_id") if key in entry]
    lines.append(f"  worker: {entry.get('pid')}{'; ' if ids else ''}{', '.join(ids)}")
    return "\n".join(map(printable, lines))


def _print_summary(figures: LogFigures) -> None:
    if not figures.requests:
        click.echo("no request")
        return
    click.echo(f"{figures.requests} requests from {printable(figures.first)} to {printable(figures.last)}")
    click.echo("status: " + ", ".join(f"{kind} {count}" for kind, count in sorted(figures.classes.items())))
    click.echo("ending: " + ", ".join(f"{printable(ending)} {count}" for ending, count in figures.endings.most_common()))
    shares = ", ".join(f"p{100 * share:g} {figures.times.percentile(share):.1f}" for share in (0.5, 0.9, 0.99, 0.999))
    click.echo(f"total ms: {shares}, max {figures.times.percentile(1):.1f}")
    paths = Table("SLOWEST PATHS", "requests", "p50 ms", "p99 ms", "max ms", box=None, pad_edge=False)
    for path, times in figures.slowest_paths(_MOST_PATHS):
        paths.add_row(printable(path), str(len(times.all)), *(f"{times.percentile(share):.1f}" for share in (0.5, 0.99, 1)))
    click.echo()
    print_table(paths, folds="")
    servers = Table("POOL", "SERVER", "requests", "errors", "failed attempts", "p50 ms", "p99 ms", "LAST FAILURE", box=None,
                    pad_edge=False)
    for (pool, name), server in sorted(figures.servers.items(), key=lambda item: (-item[1].errors - item[1].failures, item[0])):
        servers.add_row(printable(pool), printable(name), str(server.requests), str(server.errors), str(server.failures),
                        f"{server.times.percentile(0.5):.1f}", f"{server.times.percentile(0.99):.1f}", printable(server.last))
    click.echo()
    print_table(servers, folds="LAST FAILURE")
