"""prefork_lb beside nginx, HAProxy, Caddy and Apache, and beside itself on the other worker classes, in turns in one run.

    python benchmarks/side_by_side.py                                      # everything that is installed
    python benchmarks/side_by_side.py --only nginx,prefork_lb --profiles small,bulk --rounds 5
    python benchmarks/side_by_side.py --json figures.json --picture docs/images/benchmarks.svg

Each contender has the same four origin servers (nginx), as many workers, balances by least connections (Apache: by busyness),
keeps its connections to the origins and adds X-Forwarded-For. Rounds are interleaved, so that a machine that drifts hits all
alike: read the ratios. The load (wrk) and the servers run on the same machine.

Profiles: visitors (what a site gets: no two requests and no two responses have the same head; 1 KB), small (130 bytes, 11 request
fields, always the same), bare (the same with Host only), bulk (1 MiB), connect (a connection a request), tls (small over TLS),
tls-connect (a full handshake a request), tls-resume (a resumed one), latency (p99 of visitors at half of nginx's rate, by clients
that pause), idle (memory of idle clients).
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, only benchmarks/ is on the path

from benchmarks.contenders import CONTENDERS, NEEDS, NotStarted, Running, Setup, origins, program
from benchmarks.handshakes import handshakes
from benchmarks.picture import bars
from benchmarks.wrk_scripts import PAUSE_MS, write_scripts

PROFILES = ("visitors", "small", "bare", "bulk", "connect", "tls", "tls-connect", "tls-resume", "latency", "idle")
HANDSHAKES = {"tls-connect": False, "tls-resume": True}
TLS = ("tls", *HANDSHAKES)
# gunicorn's own workers come nowhere near the rate of the one, hold no such number of clients, or have no place in it.
ONLY_EVENT_LOOPS = (*TLS, "latency", "idle")
TICKS = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]


def process_tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{entry}/stat").read_text()
            children.setdefault(int(stat[stat.rindex(")") + 2:].split()[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_s(pids: list[int]) -> float:
    """User and system seconds of these processes so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            total += sum(map(int, stat[stat.rindex(")") + 2:].split()[11:13]))
    return total / TICKS


def pss_bytes(pids: list[int]) -> int:
    """Memory, with what is shared divided among those who share it (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            total += int(found[1]) * 1024 if found else 0
    return total


def in_ms(text: str) -> float:
    """wrk's times, as in 950.00us or 1.20ms, in milliseconds."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if found is None:
        raise ValueError(f"{text!r} is no time of wrk's")
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[found[2]]


def read_wrk(text: str) -> Figures:
    """Requests, requests/s, p50 and p99 in milliseconds, and errors from what wrk prints."""
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    times = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.M))
    if rate is None or count is None or len(times) != 2:
        raise ValueError(f"not what wrk prints:\n{text}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return {"requests": float(count[1]), "rate": float(rate[1]), "p50_ms": in_ms(times["50"]), "p99_ms": in_ms(times["99"]),
            "errors": float(errors)}


def wrk(url: str, seconds: float, connections: int, *options: str) -> Figures:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}", "--latency", *options, url]
    return read_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def load(profile: str, proxy: Running, seconds: float, connections: int, scripts: Path) -> Figures:
    """One round of a profile against one contender."""
    scheme = "https" if profile in TLS else "http"
    url = f"{scheme}://127.0.0.1:{proxy.port}/" + ("bulk" if profile == "bulk" else "")
    options = {"bare": (), "connect": ("-H", "Connection: close"), "latency": ("-s", str(scripts / "pause.lua")),
               "visitors": ("-s", str(scripts / "visitors.lua"))}.get(
        profile, ("-s", str(scripts / "fields.lua")))

    def once(duration: float) -> Figures:
        if profile in HANDSHAKES:
            return handshaken(proxy, duration, HANDSHAKES[profile])
        return wrk(url, duration, connections, *options)

    once(1)  # warm
    tree = process_tree(proxy.pid)
    before = cpu_s(tree)
    figures = once(seconds)
    figures["cpu_us"] = 1e6 * (cpu_s(tree) - before) / max(figures["requests"], 1)
    figures["pss_mib"] = pss_bytes(tree) / (1 << 20)
    return figures


def handshaken(proxy: Running, seconds: float, resumes: bool) -> Figures:
    """One round of handshakes; what does not resume a session, and should, is an error."""
    began = time.monotonic()
    count, share = handshakes(proxy.port, max(1, round(seconds)), resumes)
    return {"requests": float(count), "rate": count / (time.monotonic() - began), "p50_ms": 0.0, "p99_ms": 0.0,
            "errors": round(count * (1 - share)) if resumes else 0.0}


def idle(proxy: Running, count: int) -> Figures:
    """Memory of clients that have asked once and wait."""
    request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
    with contextlib.ExitStack() as stack:
        def client() -> None:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 20))
            connection.sendall(request)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                raise NotStarted("an idle client was not answered with 200")

        for _ in range(50):
            client()
        tree = process_tree(proxy.pid)
        before = pss_bytes(tree)
        for _ in range(count):
            client()
        return {"bytes_a_client": (pss_bytes(tree) - before) / count}


def certificate(folder: Path) -> Path:
    """A certificate for this run, with its key in the same file."""
    file, key = folder / "bench.pem", folder / "bench.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench.test",
                    "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


@contextlib.contextmanager
def all_started(names: list[str], setup: Setup, console: Console) -> Iterator[dict[str, Running]]:
    with contextlib.ExitStack() as stack:
        started = {}
        for name in names:
            try:
                started[name] = stack.enter_context(CONTENDERS[name](setup))
            except NotStarted as exc:
                console.print(f"[red]{name} did not start and is left out:[/] {escape(str(exc))}")
        yield started


def run(profile: str, names: list[str], setup: Setup, args: argparse.Namespace, console: Console) -> dict[str, list[Figures]]:
    rows: dict[str, list[Figures]] = {}
    connections = args.connections
    with all_started(names, setup, console) as started:
        if profile == "idle":
            count = min(args.idle_clients, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
            return {name: [idle(proxy, count)] for name, proxy in started.items()}
        if profile == "latency":
            visitors = str(setup.folder / "visitors.lua")
            most = wrk(f"http://127.0.0.1:{started['nginx'].port}/", 2, args.connections, "-s", visitors)
            connections = max(1, int(most["rate"] / 2 * PAUSE_MS / 1000))
        for number in range(args.rounds):
            for name, proxy in started.items():
                figures = load(profile, proxy, args.seconds, connections, setup.folder)
                rows.setdefault(name, []).append(figures)
                console.print(f"[dim]{profile} round {number + 1} {name}: {figures['rate']:.0f}/s, {figures['cpu_us']:.1f} us, "
                              f"p99 {figures['p99_ms']:.1f} ms, {figures['errors']:.0f} errors[/]")
    return rows


def medians(rows: dict[str, list[Figures]]) -> dict[str, Figures]:
    """The median of each figure, and of the rounds' ratios to nginx."""
    found = {name: {key: statistics.median(row[key] for row in got) for key in got[0]} for name, got in rows.items()}
    if "nginx" in rows and "rate" in rows["nginx"][0]:
        for name, got in rows.items():
            found[name]["against_nginx"] = statistics.median(
                row["rate"] / base["rate"] for row, base in zip(got, rows["nginx"], strict=True))
    return found


def show(profile: str, figures: dict[str, Figures], console: Console) -> None:
    if profile == "idle":
        table = Table("contender", "bytes a client", title=profile, title_justify="left")
        for name, row in figures.items():
            table.add_row(name, f"{row['bytes_a_client']:.0f}")
    else:
        table = Table("contender", "requests/s", "against nginx", "CPU us a request", "p50 ms", "p99 ms", "errors", "PSS MiB",
                      title=profile, title_justify="left")
        for name, row in figures.items():
            ratio = f"{row['against_nginx']:.2f}" if "against_nginx" in row else "-"
            table.add_row(name, f"{row['rate']:.0f}", ratio, f"{row['cpu_us']:.1f}", f"{row['p50_ms']:.2f}",
                          f"{row['p99_ms']:.2f}", f"{row['errors']:.0f}", f"{row['pss_mib']:.0f}")
    console.print(table)


def machine() -> dict[str, str]:
    """What the figures were made on."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    kernel = ".".join(platform.release().split(".")[:2])
    versions = {"cpu": found[1] if found else platform.machine(), "cores": str(os.cpu_count()), "kernel": kernel,
                "python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION}
    for name, option in (("nginx", "-v"), ("haproxy", "-v"), ("caddy", "version"), ("apache2", "-v")):
        path = program(name)
        if path:
            done = subprocess.run([path, option], capture_output=True, text=True, check=False)
            versions[name] = (done.stdout + done.stderr).splitlines()[0].strip()
    return versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--only", default=",".join(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--idle-clients", type=int, default=5000)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--picture", type=Path, help="write an SVG there")
    args = parser.parse_args()
    console = Console()
    profiles, wanted = args.profiles.split(","), args.only.split(",")
    unknown = [name for name in profiles if name not in PROFILES] + [name for name in wanted if name not in CONTENDERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    if not shutil.which("wrk"):
        parser.error("wrk is missing: apt-get install wrk nginx-light haproxy apache2")
    names = [name for name in wanted if program(NEEDS.get(name, "true"))]
    for name in set(wanted) - set(names):
        console.print(f"[yellow]{name} is not installed and left out[/]")
    if "latency" in profiles and "nginx" not in names:
        parser.error("the profile latency goes by nginx's rate: add nginx to --only")
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # nginx's and Apache's workers are other users
        write_scripts(folder)
        with origins(folder / "origin") as ports:
            for profile in profiles:
                pem = certificate(folder) if profile in TLS else None
                setup = Setup(folder, args.workers, ports, pem)
                able = [name for name in names if profile not in ONLY_EVENT_LOOPS or " " not in name]
                if profile == "idle":
                    able = [name for name in able if name != "apache"]  # a thread for each
                results[profile] = medians(run(profile, able, setup, args, console))
                show(profile, results[profile], console)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "figures": results}, indent=1) + "\n")
    ratios = {profile: {name: row["against_nginx"] for name, row in figures.items() if "against_nginx" in row}
              for profile, figures in results.items() if profile not in ("idle", "latency")}
    if args.picture and any(ratios.values()):
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_text(bars("Requests a second against nginx", ratios, list(CONTENDERS)))


if __name__ == "__main__":
    main()
