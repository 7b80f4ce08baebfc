"""Everything at once, then nothing may be left: does the balancer come out of a storm as it went in?

    python benchmarks/storm.py                     # a minute; exit code 1 when something is left over or a loop stood still
    python benchmarks/storm.py --seconds 20 --json figures.json

Two workers and four servers, for `--seconds`: mixed requests on kept and on new connections, servers that fail by turns
(503, reset, hang), HUP every 5 s, SIGKILL of a worker every 7 s, floods of small chunks, slow clients (heads, bodies and
readers), a tunnel that stays open, and the removal of the instance's shared memory in the middle. Afterwards every count in
shared memory has to be 0 within 10 s.

A loop's pause is the time from one return of epoll to the next call of it. It is recorded in the workers, as elapsed time and as
processor time: what lies between the two is the machine's, which runs the clients and the servers on the same cores.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, only benchmarks/ is on the path

from prefork_lb.shared.finding import DIRECTORY
from tests.support.balancer import PROXY, SETTINGS, Balancer, pool_text
from tests.support.behaviors import head
from tests.support.client import Connection, request_bytes
from tests.support.kept_load import MIXED, KeptLoad
from tests.support.load import Load
from tests.support.odd_behaviors import behave_oddly
from tests.support.origin import Link, Origin, Request
from tests.support.place import HOST, REPOSITORY
from tests.support.waiting import wait_until

HUP_EVERY_S, KILL_EVERY_S, MOOD_EVERY_S = 5.0, 7.0, 2.0
MOST_PAUSE_S = 0.1
CALM_S = 10.0

RECORDER = """
import os, time
from prefork_lb.green import hub
exec(open({settings!r}).read())
_make_rounds = hub.make_rounds

class _Recorded:
    def __init__(self, *arguments):
        self._rounds, self._since, self._cpu, self._most = _make_rounds(*arguments), 0.0, 0.0, 0.0
        self.deliver = self._rounds.deliver
    def collect(self, *arguments):
        now, cpu = time.monotonic(), time.thread_time()
        if self._since and now - self._since > self._most:
            self._most = now - self._since
            with open({folder!r} + "/pauses-%d" % os.getpid(), "a") as file:
                file.write("%f %f\\n" % (self._most, cpu - self._cpu))
        found = self._rounds.collect(*arguments)
        self._since, self._cpu = time.monotonic(), time.thread_time()
        return found

hub.make_rounds = _Recorded
"""

CHUNK_FLOOD = """
import socket, sys, threading
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
piece = (b"64\\r\\n" + b"x" * 100 + b"\\r\\n") * 500
def serve(connected):
    try:
        connected.recv(65536)
        connected.sendall(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        while True:
            connected.sendall(piece)
    except OSError:
        connected.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Moods:
    """Which of the servers fail at the moment, and how."""

    def __init__(self, count: int) -> None:
        self.by_server = ["well"] * count

    async def behave(self, link: Link, request: Request) -> bool:
        mood = self.by_server[link.server.index]
        if mood == "reset":
            link.reset()
            return False
        if mood == "hang":
            await link.server.origin.held(link)
            return False
        if mood == "503":
            await link.send(head(link, 503, [("Content-Length", "0"), ("Connection", "close")]))
            return False  # a body that nobody has read would be taken for the next request
        return await behave_oddly(link, request)


class Counts:
    """What the clients saw, by kind."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1


class Background:
    """Threads that run a function again and again until the end; a context manager."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def again(self, step: Callable[[], object], pause_s: float) -> None:
        """Call `step`, then wait; what a broken connection raises is part of a storm."""
        def run() -> None:
            while not self.stop.wait(pause_s):
                with contextlib.suppress(OSError, EOFError):
                    step()

        self._threads.append(threading.Thread(target=run, daemon=True))

    def __enter__(self) -> Background:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client of the storm hangs"


@contextlib.contextmanager
def chunk_server() -> Iterator[str]:
    """A server in a process of its own that answers with small chunks without end."""
    process = subprocess.Popen([sys.executable, "-c", CHUNK_FLOOD, HOST], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"{HOST}:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def flood(address: tuple[str, int], stop: threading.Event) -> None:
    """Take some megabytes of small chunks as quickly as they come, then leave in the middle."""
    with socket.create_connection(address, 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: flood.example\r\n\r\n")
        left = 4 << 20
        while left > 0 and not stop.is_set() and (data := sock.recv(1 << 20)):
            left -= len(data)


def slow_head(address: tuple[str, int], stop: threading.Event) -> None:
    with socket.create_connection(address, 10) as sock:
        for byte in request_bytes("/", fields=[("Host", "web.example")]):
            if stop.wait(0.05):
                return
            sock.sendall(bytes([byte]))
        sock.recv(65536)


def slow_body(address: tuple[str, int], stop: threading.Event) -> None:
    with socket.create_connection(address, 10) as sock:
        sock.sendall(request_bytes("/upload", "POST", fields=[("Host", "web.example"), ("Content-Length", "20")]))
        for _ in range(20):
            if stop.wait(0.3):
                return
            sock.sendall(b"x")
        sock.recv(65536)


def slow_reader(address: tuple[str, int], stop: threading.Event) -> None:
    with Connection(address, 10, receive_buffer=8192) as connection:
        connection.send(request_bytes("/bytes?n=300000", fields=[("Host", "web.example")]))
        while connection.receive(4096) and not stop.wait(0.05):
            pass


class Tunnel:
    """A tunnel that is used once a second; how often it was broken off."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: Connection | None = None
        self.opened = 0

    def ping(self) -> None:
        try:
            if self._connection is None:
                self._connection = Connection(self._address, 5)
                self._connection.send(request_bytes("/tunnel", fields=[
                    ("Host", "web.example"), ("Connection", "Upgrade"), ("Upgrade", "raw")]))
                if not self._connection.head().startswith(b"HTTP/1.1 101 "):
                    raise ConnectionError("no tunnel")
                self.opened += 1
            self._connection.send(b"ping")
            if self._connection.receive() != b"ping":
                raise ConnectionError("the tunnel ended")
        except OSError:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def configuration(origin: Origin, chunked: str) -> str:
    more = "\n".join([
        "[pools.web.ejection]", "seconds = 1", "[pools.web.retries]", "attempts = 2", "[pools.web.health]",
        'path = "/"', "interval = 0.5", "[pools.web.queue]", "size = 50", "timeout = 2.0"])
    return ('[proxy.timeouts]\nresponse = 2\nidle = 5\nhead = 5\n' + pool_text(origin.addresses, more=more)
            + pool_text([chunked], name="flood")
            + '[[routes]]\nhosts = ["flood.example"]\npool = "flood"\n[[routes]]\npool = "web"\n')


def rage(balancer: Balancer, moods: Moods, seconds: float, counts: Counts, rng: random.Random) -> None:
    """Signals, kills, moods, and the removal of the shared memory, until the time is over."""
    begun = time.monotonic()
    hup_at, kill_at, mood_at, vanish_at = HUP_EVERY_S, KILL_EVERY_S, MOOD_EVERY_S, seconds / 2
    while (now := time.monotonic() - begun) < seconds:
        if now >= hup_at:
            os.kill(balancer.master, signal.SIGHUP)
            counts.add("HUP")
            hup_at += HUP_EVERY_S
        if now >= kill_at:
            workers = balancer.workers()
            if workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                counts.add("SIGKILL")
            kill_at += KILL_EVERY_S
        if now >= mood_at:
            moods.by_server[:] = ["well"] * len(moods.by_server)
            moods.by_server[rng.randrange(len(moods.by_server))] = rng.choice(["503", "reset", "hang", "well"])
            mood_at += MOOD_EVERY_S
        if now >= vanish_at:
            for path in DIRECTORY.glob(f"prefork-lb-*-{balancer.master}-*"):
                path.unlink(missing_ok=True)
                counts.add("file removed from shared memory")
            vanish_at = float("inf")
        time.sleep(0.05)
    moods.by_server[:] = ["well"] * len(moods.by_server)


def pauses(folder: Path) -> tuple[float, float]:
    """The longest pause of a loop in seconds: elapsed, and the most processor time of one."""
    found = [tuple(map(float, line.split())) for path in folder.glob("pauses-*") for line in path.read_text().splitlines()]
    return max((elapsed for elapsed, _ in found), default=0.0), max((cpu for _, cpu in found), default=0.0)


def left_over(balancer: Balancer) -> dict[str, int]:
    """What shared memory counts that ought to be 0."""
    instance = balancer.status().instance
    left = {f"in flight on {server['address']}": int(server["in_flight"]) for server in instance["servers"]}
    left |= {f"claims of worker {worker['pid']}": int(worker["in_flight"]) for worker in instance["workers"]}
    left |= {f"{what} in pool {pool['name']}": int(pool[what]) for pool in instance["pools"] for what in ("waiting", "retries")}
    return {what: number for what, number in left.items() if number}


def storm(seconds: float, seed: int) -> tuple[dict[str, object], list[str]]:
    """The figures, and what is wrong."""
    rng, counts, moods, problems = random.Random(seed), Counts(), Moods(4), list[str]()
    with tempfile.TemporaryDirectory(prefix="storm-", dir="/tmp") as name, chunk_server() as chunked, \
            Origin(4, moods.behave) as origin:
        folder = Path(name)
        settings = folder / "recording.conf.py"
        settings.write_text(RECORDER.format(settings=str(SETTINGS), folder=name))
        with Balancer(folder / "balancer", configuration(origin, chunked), PROXY, workers=2, settings=settings,
                      environ={"PYTHONPATH": str(REPOSITORY)}) as balancer:
            address, tunnel = balancer.address, Tunnel(balancer.address)
            background = Background()
            for step, number in ((flood, 2), (slow_head, 5), (slow_body, 5), (slow_reader, 5)):
                for _ in range(number):
                    background.again(lambda step=step: step(address, background.stop), 0.2)
            background.again(tunnel.ping, 1.0)
            with Load(address, 2, "/", host="web.example", pause_s=0.01) as load, \
                    KeptLoad(address, 2, MIXED, pause_s=0.02) as kept, background:
                rage(balancer, moods, seconds, counts, rng)
            tunnel.close()
            elapsed, cpu = pauses(folder)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not left_over(balancer), "nothing is left", CALM_S, every=0.1)
            left = left_over(balancer)
            joined = {worker["pid"] for worker in balancer.status().instance["workers"]}
            if not joined.issuperset(balancer.workers()):
                problems.append(f"workers {balancer.workers()}, and in shared memory {sorted(joined)}")
            problems += [f"{what}: {number}" for what, number in left.items()]
            if not load.succeeded or not kept.answered:
                problems.append("no request succeeded")
            log = balancer.log()
            problems += [f"{log.count(word)} x {word!r} in the log" for word in ("Traceback", "internal error") if word in log]
            if not elapsed:
                problems.append("no loop told of its pauses")
            if cpu > MOST_PAUSE_S:
                problems.append(f"a loop was busy for {cpu * 1000:.0f} ms")
            kinds = Counter(re.sub(r" b['\"].*", "", failure.what)[:70] for failure in load.failures)
            kinds.update(re.sub(r" b['\"].*", "", failure)[:70] for failure in kept.failures)
            figures: dict[str, object] = {
                "requests answered": load.succeeded + kept.answered,
                "failures by kind": dict(kinds),
                "events": dict(counts.seen),
                "tunnels opened": tunnel.opened,
                "longest pause of a loop, ms": round(elapsed * 1000, 1),
                "most processor time of a pause, ms": round(cpu * 1000, 1),
                "left over": left,
            }
            if problems:
                (Path(tempfile.gettempdir()) / "storm.log").write_text(log)
    return figures, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    figures, problems = storm(given.seconds, given.seed)
    for name, value in figures.items():
        print(f"{name}: {value}")
    for problem in problems:
        print(f"WRONG: {problem}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
