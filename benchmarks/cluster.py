"""How near several balancers come to one, and what a store in trouble costs.

Three balancers stand before four servers: once as strangers, once sharing through a redis-server of their own (`[cluster]`).

- `burst`: one balancer has six long requests on one server, begun while the others were drained. Then 96 long requests come,
  20 ms apart, through all three in turn. Printed is the spread, the most minus the fewest in flight at the servers, 200 ms after
  the first one, and the greatest from then on.
- `open`: 400 requests a second of 30 ms at random moments, through a balancer chosen at random or in turn. Printed is the average
  spread, also of one balancer alone, which is one ledger.
- `trouble`: as `open`, at a lower rate, while the redis-server is killed, stopped, emptied and started again every five seconds.
  Printed are failed requests and times to answer, beside the same load in peace.

    python benchmarks/cluster.py --rounds 3
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # run as a file, only benchmarks/ is on the path

from benchmarks.open_loop import SlottedServer, SpreadMeter, answering, beside, drive, request, servers  # noqa: E402
from prefork_lb.cli.running import running_segment  # noqa: E402
from prefork_lb.shared.balancers import balancers  # noqa: E402
from prefork_lb.shared.states import Admin  # noqa: E402
from tests.support.balancer import PROXY, Balancer, pool_text  # noqa: E402
from tests.support.instances import set_admin  # noqa: E402
from tests.support.store import RedisServer  # noqa: E402

BALANCERS = 3
AHEAD, BURST, GAP_S, LOOK_S = 6, 96, 0.020, 0.200
SETTLE_S = 1.0
TROUBLE_EVERY_S = 5.0


class HoldingServer(SlottedServer):
    """Answers nobody until it is released."""

    def __init__(self, meter: SpreadMeter) -> None:
        super().__init__(meter)
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.in_flight += 1
                await self.released.wait()
                self.in_flight -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@contextlib.contextmanager
def running(addresses: list[str], count: int, store: RedisServer | None) -> Iterator[list[Balancer]]:
    """So many balancers before these servers, which share if there is a store."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            more = f'[cluster]\nurl = "{store.url}"\nbalancer = "b{number}"\n' if store is not None else ""
            balancer = Balancer(Path(scratch) / str(number), pool_text(addresses) + more, PROXY, workers=1)
            found.append(stack.enter_context(balancer))
        if store is not None:
            deadline = time.monotonic() + 90
            while any(len(balancers(running_segment(balancer.master))) < count for balancer in found):
                if time.monotonic() > deadline:
                    raise SystemExit("the balancers do not share:\n" + found[0].log())
                time.sleep(0.1)
        yield found


async def burst(store: RedisServer | None) -> tuple[int, int]:
    """The spread after 200 ms, and the greatest from then on."""
    meter = SpreadMeter()
    async with servers(HoldingServer, meter) as addresses, beside(running(addresses, BALANCERS, store)) as found:
        ports = [balancer.address[1] for balancer in found]
        await asyncio.to_thread(set_admin, found[0].master, "web", Admin.DRAIN, *addresses[1:])
        tasks = [asyncio.create_task(request(ports[0], [])) for _ in range(AHEAD)]
        while sum(server.in_flight for server in meter.servers) < AHEAD:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(set_admin, found[0].master, "web", Admin.READY, *addresses[1:])
        await asyncio.sleep(SETTLE_S)
        begun, early, most = time.monotonic(), -1, 0
        for number in range(BURST):
            await asyncio.sleep(max(0.0, begun + number * GAP_S - time.monotonic()))
            if time.monotonic() - begun >= LOOK_S:
                spread = spread_of(meter)
                early = spread if early < 0 else early
                most = max(most, spread)
            tasks.append(asyncio.create_task(request(ports[number % BALANCERS], [])))
        await asyncio.sleep(SETTLE_S)
        most = max(most, spread_of(meter))
        for server in meter.servers:
            assert isinstance(server, HoldingServer)
            server.released.set()
        await asyncio.gather(*tasks)
    return early, most


def spread_of(meter: SpreadMeter) -> int:
    counts = [server.in_flight for server in meter.servers]
    return max(counts) - min(counts)


async def open_loop(count: int, store: RedisServer | None, rate: float, seconds: float, seed: int, in_turn: bool,
                    trouble: bool = False) -> tuple[float, int, list[float]]:
    """The average spread, the requests that failed, and the times to answer in milliseconds."""
    meter, rng = SpreadMeter(), random.Random(f"ports {seed}")
    async with servers(SlottedServer, meter) as addresses, beside(running(addresses, count, store)) as found:
        ports = [balancer.address[1] for balancer in found]
        for port in ports:
            await answering(port)
        await asyncio.sleep(SETTLE_S)
        harm = asyncio.create_task(harming(store)) if trouble and store is not None else None
        chosen = itertools.cycle(ports) if in_turn else (rng.choice(ports) for _ in itertools.count())
        answers, times = await drive(chosen, meter, rate, seconds, seed)
        if harm is not None:
            harm.cancel()
            await asyncio.wait([harm])
    return meter.average, answers.count(False), times


async def harming(store: RedisServer) -> None:
    """Trouble after trouble, one every five seconds."""
    def empty() -> object:
        return store.command("FLUSHALL")

    while True:
        for harm, mend in ((store.kill, store.start), (store.stop_running, store.go_on), (empty, empty)):
            await asyncio.to_thread(harm)
            try:
                await asyncio.sleep(TROUBLE_EVERY_S / 2)
            finally:
                await asyncio.to_thread(mend)  # the next round needs the store
            await asyncio.sleep(TROUBLE_EVERY_S / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", action="append", choices=["burst", "open", "trouble"])
    parser.add_argument("--rate", type=float, default=400.0, help="of `open`, requests a second")
    parser.add_argument("--trouble-rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--trouble-seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    what = arguments.what or ["burst", "open", "trouble"]
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as store:
        for number in range(arguments.rounds):  # in turns, so that a machine that drifts hits all alike
            if "burst" in what:
                print_bursts(store)
            if "open" in what:
                print_open_loops(store, arguments, arguments.seed + number)
            if "trouble" in what:
                print_trouble(store, arguments, arguments.seed + number)


def print_bursts(store: RedisServer) -> None:
    for name, shared in (("strangers", None), ("sharing", store)):
        early, most = asyncio.run(burst(shared))
        print(f"burst    {name:22} after 200 ms {early:2d}, most from then on {most:2d}", flush=True)


def print_open_loops(store: RedisServer, arguments: argparse.Namespace, seed: int) -> None:
    kinds = (("one ledger", 1, None, False), ("strangers, at random", 3, None, False), ("sharing, at random", 3, store, False),
             ("strangers, in turn", 3, None, True), ("sharing, in turn", 3, store, True))
    for name, count, shared, in_turn in kinds:
        spread, failed, _ = asyncio.run(open_loop(count, shared, arguments.rate, arguments.seconds, seed, in_turn))
        print(f"open     {name:22} spread {spread:.2f}, failed {failed}", flush=True)


def print_trouble(store: RedisServer, arguments: argparse.Namespace, seed: int) -> None:
    for name, trouble in (("sharing in peace", False), ("sharing in trouble", True)):
        _, failed, times = asyncio.run(
            open_loop(BALANCERS, store, arguments.trouble_rate, arguments.trouble_seconds, seed, True, trouble))
        cuts = statistics.quantiles(times, n=100)
        print(f"trouble  {name:22} failed {failed} of {len(times)}, p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
