"""What one client waits while others flood: a worker's loop has to be shared, however fast the peers of some exchanges are.

`python -m benchmarks.fairness` starts every contender with one worker over one server, lets some clients take endless responses
that the server sends without pause (see tests/support/flood.py for the kinds), and asks for a small response every few
milliseconds on one kept connection. Printed are the waits of that client: the median of the rounds' p50 and p99, and the
longest of all.
"""
from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import CONTENDERS, NEEDS, Setup, program
from tests.support.flood import KINDS, flood_server, flooding

REQUEST = b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n"
PATIENCE_S = 30.0
Waits = list[float]


def ask(connected: socket.socket) -> float:
    """Seconds until a whole small response is there."""
    begun = time.perf_counter()
    connected.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"hello"):
        data = connected.recv(65536)
        if not data:
            raise ConnectionError("the proxy closed the connection")
        answer += data
    return time.perf_counter() - begun


def waits(port: int, seconds: float, pause_s: float) -> Waits:
    """Of one client that asks, and pauses after each answer."""
    found: Waits = []
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(connected)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            found.append(ask(connected))
            time.sleep(pause_s)
    return found


def measure(name: str, kinds: list[str], seconds: float, pause_s: float) -> Waits:
    """One round of one contender."""
    with tempfile.TemporaryDirectory() as folder, flood_server() as origin:
        setup = Setup(Path(folder), 1, (origin,), None)
        with CONTENDERS[name](setup) as running, flooding(("127.0.0.1", running.port), *kinds):
            time.sleep(0.5)  # until all of them flow
            return waits(running.port, seconds, pause_s)


def percentile(found: Waits, share: float) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * share))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="chunks-100", help="of flood")
    parser.add_argument("--floods", type=int, default=3, help="clients that flood")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between two requests")
    parser.add_argument("--proxy", action="append", choices=list(CONTENDERS), help="again for each; else the three")
    options = parser.parse_args()
    names = [name for name in options.proxy or ["prefork_lb", "nginx", "haproxy"] if name not in NEEDS or program(NEEDS[name])]
    rounds: dict[str, list[Waits]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            rounds[name].append(measure(name, [options.kind] * options.floods, options.seconds, options.pause))
    print(f"| {options.floods} x {options.kind} | p50 | p99 | longest | requests |\n| --- | --- | --- | --- | --- |")
    for name, found in rounds.items():
        p50, p99 = (statistics.median(percentile(each, share) for each in found) for share in (0.5, 0.99))
        print(f"| {name} | {1e3 * p50:.1f} ms | {1e3 * p99:.1f} ms | {1e3 * max(map(max, found)):.1f} ms "
              f"| {sum(map(len, found))} |")


if __name__ == "__main__":
    main()
