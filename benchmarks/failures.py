"""What clients see while one of four servers fails: prefork_lb beside nginx and HAProxy, in turns in one run.

    python benchmarks/failures.py                                          # every scenario, retries off: 15 minutes
    python benchmarks/failures.py --scenario fast-503,slow --only nginx-leastconn,prefork_lb
    python benchmarks/failures.py --scenario kill,hang --retries --json figures.json

Requests come at random moments, 300 a second whatever the answers do, over kept connections, to four servers of 30 ms
(exponential, any number at a time). Server 1 fails, then is well again. A request is timed from the moment it was due.

Scenarios: fast-503 (answers 503 at once), slow (33 times slower: a second), ten-times (10 times slower throughout), kill
(SIGKILL, started anew), hang (SIGSTOP, SIGCONT), refuse (stops listening and lets its connections end), status-500 (after
the usual time), reset-in-body (in the middle of every body).

Each contender has two workers (HAProxy: threads) and retries off, or with --retries three attempts on every kind of failure.
prefork_lb's ejection has its defaults; nginx's is max_fails=1 unless --max-fails says otherwise; HAProxy has none without checks.
In hang each waits 2 s for a response.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, only benchmarks/ is on the path

from benchmarks.contenders import REPOSITORY, NotStarted, Running, program, running
from benchmarks.failing_servers import (
    CONSTANT,
    Behavior,
    Record,
    ServerProcess,
    answers,
    client_process,
    collect,
    processes,
    quiet_port,
)

SERVERS, WORKERS, RATE, SEED = 4, 2, 300.0, 1
FAILING = "1"
CLIENTS_START_S = 1.0  # for their process to be up before the first request is due
ATTEMPTS = 3
FIRST_S = 2.0  # a failure may be noticed within that time
WINDOW_S, STEP_S = 0.5, 0.1  # 37 requests are a server's fair share of a window: half of it by chance is rare
Figures = dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How server 1 fails. Times are seconds; `kind` says which figures are of interest."""

    kind: str  # status, latency, throughout, errors
    fault: Behavior | signal.Signals
    start_s: float = 3.0
    length_s: float = 10.0
    after_s: float = 5.0
    response_timeout_s: float = 0.0  # of the proxy; 0: its own default


SCENARIOS = {
    # A server may be ejected for 10 s by default, here and in nginx: its way back takes longer.
    "fast-503": Scenario("status", Behavior(status=503, factor=0), length_s=5, after_s=14),
    "slow": Scenario("latency", Behavior(factor=33), length_s=5, after_s=14),
    "ten-times": Scenario("throughout", Behavior(factor=10), start_s=0, length_s=20, after_s=0),
    "kill": Scenario("errors", signal.SIGKILL),
    "hang": Scenario("errors", signal.SIGSTOP, response_timeout_s=2),
    "refuse": Scenario("errors", Behavior(listening=False)),
    "status-500": Scenario("errors", Behavior(status=500)),
    "reset-in-body": Scenario("errors", Behavior(reset=True)),
}


# -- the contenders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setup:
    """What the contenders of one scenario share. `max_fails` is nginx's; `response_timeout_s` 0: the proxy's default."""

    servers: tuple[int, ...]  # ports
    retries: bool = False
    max_fails: int = 1
    response_timeout_s: float = 0.0


def nginx_text(setup: Setup, port: int, folder: Path, method: str) -> str:
    """nginx's configuration; `method` is what stands first in the upstream block, empty for round robin."""
    temporary = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    servers = " ".join(f"server 127.0.0.1:{server} max_fails={setup.max_fails};" for server in setup.servers)
    again = f"error timeout http_500 http_502 http_503 http_504; proxy_next_upstream_tries {ATTEMPTS}" if setup.retries else "off"
    timeout = f"proxy_read_timeout {setup.response_timeout_s:g}s; " if setup.response_timeout_s else ""
    return f"""
worker_processes {WORKERS}; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; {temporary}
  upstream b {{ {method} {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} reuseport; location / {{ proxy_http_version 1.1; proxy_set_header Connection "";
    {timeout}proxy_next_upstream {again}; proxy_pass http://b; }} }} }}
"""


def haproxy_text(setup: Setup, port: int, balance: str) -> str:
    again = f"""  retries {ATTEMPTS - 1}
  option redispatch 1
  retry-on conn-failure empty-response response-timeout 500 502 503 504""" if setup.retries else """  retries 0
  no option redispatch"""
    servers = "\n".join(f"  server s{number} 127.0.0.1:{server}" for number, server in enumerate(setup.servers, 1))
    return f"""
global
  nbthread {WORKERS}
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server {setup.response_timeout_s or 60:g}s
  http-reuse always
{again}
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance {balance}
{servers}
"""


def prefork_lb_text(setup: Setup, port: int, policy: str = "least-connections") -> str:
    again = f"""attempts = {ATTEMPTS}
on = ["connect", "reset", "timeout"]
statuses = [500, 502, 503, 504]""" if setup.retries else "attempts = 1"
    timeouts = f"[proxy.timeouts]\nresponse = {setup.response_timeout_s:g}\n" if setup.response_timeout_s else ""
    servers = ", ".join(f'"127.0.0.1:{server}"' for server in setup.servers)
    return f"""
[listen]
bind = ["127.0.0.1:{port}"]
workers = {WORKERS}
{timeouts}
[pools.web]
policy = "{policy}"
servers = [{servers}]
[pools.web.retries]
{again}
"""


CONTENDERS = {"nginx-roundrobin": "", "nginx-leastconn": "zone b 64k; least_conn;", "haproxy-roundrobin": "roundrobin",
              "haproxy-leastconn": "leastconn", "prefork_lb": "least-connections", "prefork_lb-peak-ewma": "peak-ewma"}
"""Names, and the words that each proxy has for its policy."""


@contextlib.contextmanager
def started(name: str, setup: Setup, folder: Path) -> Iterator[Running]:
    """A contender in front of the servers. Raises NotStarted."""
    folder.mkdir()
    port, environ = quiet_port(), {}
    kind = name.partition("-")[0]
    if kind == "nginx":
        config = folder / "nginx.conf"
        config.write_text(nginx_text(setup, port, folder, CONTENDERS[name]))
        command = [program("nginx") or "nginx", "-c", str(config)]
    elif kind == "haproxy":
        config = folder / "haproxy.cfg"
        config.write_text(haproxy_text(setup, port, CONTENDERS[name]))
        command = [program("haproxy") or "haproxy", "-f", str(config)]
    else:
        config = folder / "prefork_lb.toml"
        config.write_text(prefork_lb_text(setup, port, CONTENDERS[name]))
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", str(REPOSITORY / "gunicorn.conf.py"), "prefork_lb:app"]
        environ = {"PREFORK_LB_CONFIG": str(config), "PYTHONPATH": str(REPOSITORY)}
    with running(command, port, folder, environ) as found:
        if not answers(port):
            raise NotStarted((folder / "output.log").read_text(errors="replace")[-2000:])
        yield found


# -- figures ------------------------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that `percent` of all values do not exceed; None of none."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(int(rank), 1) - 1] if ordered else None


def begun(records: Sequence[Record], since_s: float, until_s: float) -> list[Record]:
    return [record for record in records if since_s <= record.start_s < until_s]


def share_percent(records: Sequence[Record]) -> float | None:
    """Server 1's part of what servers answered, in percent of its fair share; None when none answered."""
    named = [record.server for record in records if record.server]
    return 100 * SERVERS * named.count(FAILING) / len(named) if named else None


def recovery_s(records: Sequence[Record], recovered_s: float) -> float | None:
    """Seconds from `recovered_s` until a window begins in which server 1 has half its fair share; None: not in this run."""
    last_s = max((record.start_s for record in records), default=0.0)
    step = 0
    while (since_s := recovered_s + step * STEP_S) + WINDOW_S <= last_s:
        share = share_percent(begun(records, since_s, since_s + WINDOW_S))
        if share is not None and share >= 50:
            return round(step * STEP_S, 3)
        step += 1
    return None


def latencies_ms(records: Sequence[Record]) -> list[float]:
    """Of those that were answered well: an error that comes at once must not improve them."""
    return [1000 * record.latency_s for record in records if not record.error]


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def by_kind(records: Sequence[Record]) -> str:
    counts = collections.Counter(record.error for record in records if record.error)
    return " ".join(f"{kind}:{count}" for kind, count in counts.most_common())


def errors(records: Sequence[Record]) -> int:
    return sum(1 for record in records if record.error)


def figures(scenario: Scenario, records: Sequence[Record]) -> Figures:
    """What is of interest of a scenario's run."""
    start_s = scenario.start_s
    end_s = start_s + scenario.length_s
    during, after = begun(records, start_s, end_s), begun(records, end_s, float("inf"))
    found: Figures = {"requests": len(during)}
    if scenario.kind == "errors":
        # By the moment they are seen: what was under way when the server failed began before.
        seen = [record for record in records if record.end_s >= start_s and record.start_s < end_s]
        found |= {"errors": errors(seen), "kinds": by_kind(seen), f"errors after {FIRST_S:g} s": errors(
            begun(records, start_s + FIRST_S, end_s)), "errors when well": errors(after)}
        return found
    found |= {"errors": errors(during), "kinds": by_kind(during), "share %": share_percent(during)}
    times = latencies_ms(during)
    found |= {"mean ms": mean(times), "p99 ms": percentile(times, 99)}
    if scenario.kind == "latency":
        found["p99 ms after"] = percentile(latencies_ms(begun(records, end_s, end_s + 2)), 99)
    if scenario.kind != "throughout":
        found["half share after s"] = recovery_s(records, end_s)
        found["errors when well"] = errors(after)
    return found


# -- runs ---------------------------------------------------------------------------------------------------------------


def fail(server: ServerProcess, fault: Behavior | signal.Signals) -> None:
    if isinstance(fault, Behavior):
        server.behave(fault)
    else:
        server.signal(fault)


def heal(server: ServerProcess, fault: Behavior | signal.Signals) -> None:
    if isinstance(fault, Behavior):
        server.behave(Behavior())
    elif fault == signal.SIGKILL:
        server.start()
    else:
        server.signal(signal.SIGCONT)


def sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))


def run(name: str, scenario: Scenario, args: argparse.Namespace, folder: Path) -> list[Record]:
    """One contender through one scenario. Raises NotStarted."""
    end_s = scenario.start_s + scenario.length_s
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(processes(SERVERS))
        setup = Setup(tuple(server.port for server in servers), args.retries, args.max_fails, scenario.response_timeout_s)
        proxy = stack.enter_context(started(name, setup, folder))
        if scenario.start_s == 0:
            fail(servers[0], scenario.fault)
        begin = time.monotonic() + CLIENTS_START_S
        clients = stack.enter_context(client_process(proxy.port, begin, end_s + scenario.after_s, RATE, SEED))
        if scenario.start_s > 0:
            sleep_until(begin + scenario.start_s)
            fail(servers[0], scenario.fault)
        sleep_until(begin + end_s)
        heal(servers[0], scenario.fault)
        return collect(clients)


def show(title: str, results: dict[str, Figures], console: Console) -> None:
    columns = list(next(iter(results.values())))
    table = Table("contender", *columns, title=title, title_justify="left")
    for name, row in results.items():
        cells = (row[column] for column in columns)
        table.add_row(name, *("-" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)


def ended(number: int, frame: object) -> None:
    sys.exit(128 + number)  # as an exception, so that every process is ended on the way out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default=",".join(SCENARIOS), metavar="NAME,...", help=f"some of {', '.join(SCENARIOS)}")
    parser.add_argument("--only", default=",".join(CONTENDERS), metavar="NAME,...", help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--seconds", type=float, help="how long the server fails; without it, the scenario's own time")
    parser.add_argument("--retries", action="store_true", help="three attempts a request, on every kind of failure")
    parser.add_argument("--constant", action="store_true", help="service times that are all the same")
    parser.add_argument("--max-fails", type=int, default=1, help="nginx's max_fails; 0: no passive ejection there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    scenarios, names = args.scenario.split(","), args.only.split(",")
    unknown = [name for name in scenarios if name not in SCENARIOS] + [name for name in names if name not in CONTENDERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    if args.constant:
        os.environ[CONSTANT] = "1"
    console = Console(width=None if sys.stdout.isatty() else 150)
    settings = f"retries {'on' if args.retries else 'off'}, nginx max_fails={args.max_fails}"
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="failures-") as scratch:
        Path(scratch).chmod(0o755)  # nginx's workers are another user
        for wanted in scenarios:
            scenario = replace(SCENARIOS[wanted], length_s=args.seconds or SCENARIOS[wanted].length_s)
            found: dict[str, Figures] = {}
            for name in names:
                if not program(name.partition("-")[0]) and not name.startswith("prefork_lb"):
                    console.print(f"[yellow]{name} is not installed and left out[/]")
                    continue
                try:
                    records = run(name, scenario, args, Path(scratch) / f"{wanted}-{name}")
                except NotStarted as exc:
                    console.print(f"{name} did not start and is left out: {exc}", style="red", markup=False)
                    continue
                found[name] = figures(scenario, records)
                late = percentile([1000 * record.late_s for record in records], 99) or 0.0
                console.print(f"[dim]{wanted} {name}: {len(records)} requests, clients late by {late:.1f} ms (p99)[/]")
            results[wanted] = found
            if found:
                show(f"{wanted}, {scenario.length_s:g} s ({settings})", found, console)
    if args.json:
        report = {"retries": args.retries, "nginx_max_fails": args.max_fails, "rate": RATE, "figures": results}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
