"""CPU a request of the WSGI front end, against the least a WSGI app can do.

    python benchmarks/wsgi_overhead.py [--rounds 7] [--seconds 3] [--workers 2] [--threads 32]

Two gunicorns with the same worker class and settings run in turns: `prefork_lb:app`, and an app that forwards with a bare
socket, which neither checks, balances, counts nor retries (`bare_socket_app.py`). Four origins answer from one process. What is
printed is the CPU time of gunicorn's workers (user and system) a request, as medians over the rounds, and their ratio.
Needs wrk for the load.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--worker-class", default="gthread")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: apt-get install wrk")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = stack.enter_context(origins())
        environ = {**os.environ, "PREFORK_LB_SERVERS": ",".join(f"127.0.0.1:{port}" for port in ports),
                   "PYTHONPATH": f"{HERE}:{HERE.parent}"}
        masters = {name: stack.enter_context(gunicorn(app, folder / name, environ, arguments))
                   for name, app in (("bare socket", "bare_socket_app:app"), ("prefork_lb", "prefork_lb:app"))}
        figures: dict[str, list[float]] = {name: [] for name in masters}
        for number in range(arguments.rounds):
            for name, (pid, port) in masters.items():
                figures[name].append(measure(pid, port, arguments))
            last = ", ".join(f"{name} {values[-1]:.0f} us" for name, values in figures.items())
            print(f"round {number + 1}: {last}", flush=True)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = [ours / bare for ours, bare in zip(figures["prefork_lb"], figures["bare socket"], strict=True)]
    for name, value in medians.items():
        print(f"{name:12} {value:6.0f} us of CPU a request")
    print(f"ratio of the medians {medians['prefork_lb'] / medians['bare socket']:.2f}, "
          f"median of the rounds' ratios {statistics.median(ratios):.2f}")


@contextlib.contextmanager
def origins() -> Iterator[list[int]]:
    """Four origins in a process of their own; yields their ports."""
    process = subprocess.Popen([sys.executable, str(HERE / "origin_server.py"), "4"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def gunicorn(app: str, folder: Path, environ: dict[str, str], arguments: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """A gunicorn with `app`; yields its master's pid and its port."""
    folder.mkdir()
    port = free_port()
    log = folder / "log"
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-k", arguments.worker_class, "--threads", str(arguments.threads),
             "-w", str(arguments.workers), "-b", f"127.0.0.1:{port}", "--keep-alive", "75", app],
            cwd=folder, env=environ, stdout=output, stderr=output)
        try:
            wait_until_it_answers(port, log)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait()


def wait_until_it_answers(port: int, log: Path) -> None:
    import requests

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}:\n{log.read_text(encoding='utf-8')}")


def measure(master: int, port: int, arguments: argparse.Namespace) -> float:
    """Microseconds of CPU a request of the master's workers, under wrk's load: a connection for each thread of a worker."""
    command = ["wrk", "-t1", f"-c{arguments.threads}", f"http://127.0.0.1:{port}/"]
    subprocess.run([*command, "-d1"], check=True, capture_output=True)
    before = cpu_seconds(master)
    text = subprocess.run([*command, f"-d{arguments.seconds}"], check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(master) - before
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"the load had errors:\n{text}")
    found = re.search(r"(\d+) requests in", text)
    assert found is not None, text
    return used / int(found[1]) * 1e6


def cpu_seconds(master: int) -> float:
    """CPU time so far of a process' children."""
    total = 0.0
    for child in Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split():
        stat = Path(f"/proc/{child}/stat").read_text(encoding="latin-1")
        fields = stat[stat.rindex(")") + 2:].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
