"""How evenly a balancer spreads an open load, sampled at the servers.

Requests come at random moments, 400 a second whatever the answers do, to 4 equal servers of 4 slots and 30 ms of
service. The spread is the difference between the most and the fewest requests in flight at the servers (a waiting
request is in flight too), averaged over time. Beside it an ideal balancer is simulated under the same kind of load:
join the shortest queue, equals in turns.

    python benchmarks/open_loop.py                          # prefork_lb on gthread, 4 workers
    python benchmarks/open_loop.py --proxy nginx --proxy haproxy --proxy prefork_lb --seconds 20 --rounds 3
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # run as a file, only benchmarks/ is on the path

from tests.support.balancer import Balancer, FrontEnd, pool_text  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

SERVERS, SLOTS, SERVICE_S = 4, 4, 0.030
WARM_UP_S = 1.0
Started = TypeVar("Started")
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

NGINX = """
worker_processes 4; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 2048; }}
http {{ access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  upstream b {{ zone b 64k; least_conn; {servers} keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_pass http://b; }} }} }}
"""
HAPROXY = """
global
  nbthread 4
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance leastconn
{servers}
"""


class SlottedServer:
    """A server that works on `SLOTS` requests at once, `SERVICE_S` each; others wait in its queue."""

    def __init__(self, spread: SpreadMeter) -> None:
        self.in_flight = 0
        self._spread = spread
        self._slots = asyncio.Semaphore(SLOTS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self._spread.note()
                self.in_flight += 1
                async with self._slots:
                    await asyncio.sleep(SERVICE_S)
                self._spread.note()
                self.in_flight -= 1
                writer.write(REPLY)
        writer.close()


class SpreadMeter:
    """The spread integrated over time: `note` is called before every change."""

    def __init__(self) -> None:
        self.servers: list[SlottedServer] = []
        self.reset()

    def reset(self) -> None:
        self.start = self.last = time.monotonic()
        self.area = 0.0

    def note(self) -> None:
        now = time.monotonic()
        counts = [server.in_flight for server in self.servers]
        self.area += (max(counts) - min(counts)) * (now - self.last)
        self.last = now

    @property
    def average(self) -> float:
        return self.area / (self.last - self.start)


@dataclass(slots=True)
class Result:
    """One run: the average spread, the requests answered, those that failed, and response times in milliseconds."""

    proxy: str
    spread: float
    answered: int
    failed: int
    p50_ms: float
    p99_ms: float


async def request(port: int, times: list[float]) -> bool:
    start = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    except (OSError, TimeoutError):
        return False
    times.append(1000 * (time.monotonic() - start))
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok")


async def drive(
    ports: Iterator[int], meter: SpreadMeter, rate: float, seconds: float, seed: int
) -> tuple[list[bool], list[float]]:
    """Send Poisson arrivals at `rate` a second, each to the next of `ports`; the meter and the answers count from the end of the
    warm-up."""
    rng = random.Random(seed)
    times: list[float] = []
    tasks: list[asyncio.Task[bool]] = []
    begin = due = time.monotonic()
    measuring = False
    while due < begin + WARM_UP_S + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if not measuring and due >= begin + WARM_UP_S:
            measuring = True
            meter.reset()
            times.clear()
            tasks = [task for task in tasks if not task.done()]
        tasks.append(asyncio.create_task(request(next(ports), times)))
        due += rng.expovariate(rate)
    meter.note()
    return list(await asyncio.gather(*tasks)), times


def ideal(rate: float, seconds: float, seed: int) -> float:
    """The average spread of join-the-shortest-queue, ties in turns, for the same kind of load."""
    rng = random.Random(seed)
    in_flight, waiting, last_pick = [0] * SERVERS, [0] * SERVERS, [0] * SERVERS
    ends: list[tuple[float, int]] = []
    now = area = 0.0
    arrival, number = rng.expovariate(rate), 0
    while now < seconds:
        finishing = bool(ends) and ends[0][0] < arrival
        moment = ends[0][0] if finishing else arrival
        area += (max(in_flight) - min(in_flight)) * (moment - now)
        now = moment
        if finishing:
            _, server = heapq.heappop(ends)
            in_flight[server] -= 1
            if waiting[server]:
                waiting[server] -= 1
                heapq.heappush(ends, (now + SERVICE_S, server))
            continue
        fewest = min(in_flight)
        number += 1
        server = min((s for s in range(SERVERS) if in_flight[s] == fewest), key=last_pick.__getitem__)
        last_pick[server] = number
        if in_flight[server] < SLOTS:
            heapq.heappush(ends, (now + SERVICE_S, server))
        else:
            waiting[server] += 1
        in_flight[server] += 1
        arrival = now + rng.expovariate(rate)
    return area / now


@contextlib.asynccontextmanager
async def servers(kind: type[SlottedServer], meter: SpreadMeter) -> AsyncIterator[list[str]]:
    """As many of them as the meter is for; their addresses."""
    meter.servers = [kind(meter) for _ in range(SERVERS)]
    listeners = [await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024) for server in meter.servers]
    try:
        yield [f"127.0.0.1:{listener.sockets[0].getsockname()[1]}" for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


@contextlib.asynccontextmanager
async def beside(started: contextlib.AbstractContextManager[Started]) -> AsyncIterator[Started]:
    """Enter and leave it in a thread: waiting for a proxy must not stop the servers that it asks."""
    with contextlib.ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, started)
        await asyncio.to_thread(stack.close)


@contextlib.contextmanager
def process(command: list[str], port: int) -> Iterator[int]:
    """A proxy that runs in the foreground until the block ends."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        running.terminate()
        running.wait(10)


@contextlib.contextmanager
def proxy(name: str, addresses: list[str], folder: Path, front_end: FrontEnd) -> Iterator[int]:
    """Start the proxy `name` before these servers; its port."""
    if name == "prefork_lb":
        with Balancer(folder, pool_text(addresses), front_end, workers=front_end.workers) as balancer:
            yield balancer.address[1]
        return
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / f"{name}.conf"
    if name == "nginx":
        servers = "".join(f"server {address};" for address in addresses)
        config.write_text(NGINX.format(folder=folder, servers=servers, port=port))
        command = ["nginx", "-e", str(folder / "nginx.err"), "-c", str(config)]
    else:
        servers = "".join(f"  server s{number} {address}\n" for number, address in enumerate(addresses))
        config.write_text(HAPROXY.format(servers=servers, port=port))
        command = ["haproxy", "-f", str(config)]
    with process(command, port) as started:
        yield started


async def answering(port: int) -> None:
    """Wait until the proxy answers. Raises TimeoutError."""
    async with asyncio.timeout(15):
        while not await request(port, []):
            await asyncio.sleep(0.05)


async def measure(name: str, arguments: argparse.Namespace, seed: int) -> Result:
    """One round with one proxy, its servers and its clients in this process."""
    meter = SpreadMeter()
    front_end = FrontEnd(arguments.worker_class, arguments.workers, arguments.threads, 0)
    with tempfile.TemporaryDirectory() as scratch:
        async with servers(SlottedServer, meter) as addresses, beside(proxy(name, addresses, Path(scratch), front_end)) as port:
            await answering(port)
            answers, times = await drive(itertools.repeat(port), meter, arguments.rate, arguments.seconds, seed)
    cuts = statistics.quantiles(times, n=100)
    return Result(name, meter.average, sum(answers), answers.count(False), cuts[49], cuts[98])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", action="append", choices=["prefork_lb", "nginx", "haproxy"])
    parser.add_argument("--worker-class", default="gthread")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--rate", type=float, default=400.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    results: list[Result] = []
    for number in range(arguments.rounds):  # in turns, so that a machine that drifts hits all alike
        for name in arguments.proxy or ["prefork_lb"]:
            results.append(asyncio.run(measure(name, arguments, arguments.seed + number)))
    best = ideal(arguments.rate, 500.0, arguments.seed)
    if arguments.json:
        print(json.dumps({"ideal": best, "runs": [asdict(result) for result in results]}))
        return
    print(f"{'':12} {'spread':>7} {'answered':>9} {'failed':>7} {'p50 ms':>7} {'p99 ms':>7}")
    for result in results:
        print(f"{result.proxy:12} {result.spread:7.3f} {result.answered:9d} {result.failed:7d} "
              f"{result.p50_ms:7.1f} {result.p99_ms:7.1f}")
    print(f"{'ideal':12} {best:7.3f}")


if __name__ == "__main__":
    main()
