"""A day of a pool that scales, on virtual time, against a pool that is fixed at what its peak needs; and a surge, for real.

The day: 5 requests a second at night, rising from 6:00 to 400 at noon and falling until 22:00, and two bursts of 200 more a
second that come at once and last ten minutes, at 9:00 and at 20:00. A request takes 50 ms on average, a server works on 8 at
once and takes 3 s to start. The rule is the product's own (`scaling.autoscaler`), the pool that of `prefork-lb simulate`.

The surge: a gunicorn application of 50 ms, from 1 to 6 processes, `target = 4`. Load goes from 5 to 200 requests a second at
once, and back.

    python -m benchmarks.scaling day [--speed 10] [--picture docs/images/scaling.svg]
    python -m benchmarks.scaling surge
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.scaling_picture import picture
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.scaling.autoscaler import Autoscaler, PoolLoad
from prefork_lb.scaling.rule import RuleSettings
from prefork_lb.simulate.figures import percentile
from prefork_lb.simulate.servers import DescribedServer
from prefork_lb.simulate.service_times import parse_service_times
from prefork_lb.simulate.simulation import SimulatedServer, Simulation, simulated
from tests.support.balancer import NO_CONTROL_SOCKET, PROXY, Balancer
from tests.support.instances import usable

DAY_S, NIGHT, NOON, BURST = 86400.0, 5.0, 400.0, 200.0
BURSTS_AT_S, BURST_S = (9 * 3600.0, 20 * 3600.0), 600.0
SERVICE, WORKERS, START_S = parse_service_times("lognormal:50ms,0.5"), 8, 3.0
SETTINGS = RuleSettings(most=8, target=4.0)
STEP_S, DECIDE_S, SHOWN_S = 0.25, 1.0, 60.0


def rate_at(second: float) -> float:
    """Requests a second at this time of the day."""
    hour = second / 3600
    rise, fall = (hour - 6) / 6, (22 - hour) / 10
    base = NIGHT + (NOON - NIGHT) * max(0.0, min(rise, fall))
    return base + BURST * any(begin <= second < begin + BURST_S for begin in BURSTS_AT_S)


@dataclass
class Day:
    """What a day has cost, and how well it was served."""

    server_s: float = 0.0  # seconds of servers that ran: starting, serving, finishing
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    refused: int = 0
    requests: int = 0
    shown: list[tuple[float, float, int]] = field(default_factory=list)  # time of the day, requests a second, servers


class Fleet:
    """Servers that are there some seconds after they are wanted, and gone when their requests are over."""

    def __init__(self, servers: Sequence[SimulatedServer], running: int) -> None:
        self._servers = servers
        self._up_at = {server.slot: 0.0 for server in servers[:running]}
        for server in servers[running:]:
            server.limit = 0

    def step(self, now: float, wanted: int) -> None:
        for server in self._servers:
            if server.slot < wanted:
                up_at = self._up_at.setdefault(server.slot, now + START_S)
                server.limit = WORKERS if now >= up_at else 0
            else:
                server.limit = 0
                if not server.claims:
                    self._up_at.pop(server.slot, None)

    @property
    def serving(self) -> int:
        return sum(1 for server in self._servers if server.limit)

    @property
    def there(self) -> int:
        return len(self._up_at)


def live(fixed: int | None, seed: int, speed: float, tell: Callable[[str], None] = lambda _: None) -> Day:
    """A day of a pool of `fixed` servers; None: of one that scales. `speed`: the day passes by so many times as fast, which is
    harder for the rule, whose windows stay as they are."""
    rng = random.Random(seed)
    count = fixed or SETTINGS.most
    servers = simulated([DescribedServer(str(number), workers=WORKERS, max_connections=WORKERS) for number in range(count)])
    memory = PolicyMemory([0] * 16, tuple([0] * count for _ in range(16)))
    pool = Simulation(servers, lambda clock: make_policy("least-connections", PolicySetup(rng, memory, servers, clock=clock)),
                      queue_size=10_000, queue_timeout_s=60.0)
    fleet, autoscaler, wanted = Fleet(servers, fixed or 1), Autoscaler(SETTINGS, 0.0, 1), fixed or 1
    day, steps, length_s = Day(), round(DAY_S / speed / STEP_S), DAY_S / speed
    arrival, requests, draw = rng.expovariate(NIGHT), 0, SERVICE.draw
    for step in range(1, steps + 1):
        now, rate = step * STEP_S, rate_at(step * STEP_S * speed)
        while arrival < now:
            pool.advance(arrival)
            pool.claim(draw(rng))
            requests += 1
            arrival += rng.expovariate(rate)
        pool.advance(now)
        autoscaler.note(now, PoolLoad(sum(server.claims for server in servers) + pool.waiting, requests))
        if fixed is None and now % DECIDE_S == 0:
            wanted = autoscaler.wish(now, fleet.serving, 1).servers
        fleet.step(now, wanted)
        day.server_s += fleet.there * STEP_S * speed
        if now * speed % SHOWN_S < STEP_S * speed:
            day.shown.append((now * speed, rate, fleet.there))
        if step % (steps // 24) == 0:
            tell(f"{now / length_s:.0%}: {fleet.there} servers")
    pool.drain()
    times = sorted(pool.latencies)
    day.requests, day.refused = requests, pool.refused
    day.p50_ms, day.p99_ms = (1000 * percentile(times, percent) for percent in (50, 99))
    return day


def peak_need() -> int:
    """The servers that the busiest moment needs by the rule."""
    peak = max(rate_at(second) for second in range(0, int(DAY_S), 60))
    return -(-int(peak * SERVICE.mean_s * 1000) // int(SETTINGS.target * 1000))


def day(arguments: argparse.Namespace) -> None:
    fixed = peak_need()
    scaled = live(None, arguments.seed, arguments.speed, lambda text: print(text, file=sys.stderr))
    constant = live(fixed, arguments.seed, arguments.speed)
    print(f"{scaled.requests} requests, {scaled.refused} refused")
    print(f"scaled:  {scaled.server_s / 3600:7.1f} server-hours, p50 {scaled.p50_ms:.0f} ms, p99 {scaled.p99_ms:.0f} ms")
    print(f"fixed:   {constant.server_s / 3600:7.1f} server-hours, p50 {constant.p50_ms:.0f} ms, p99 {constant.p99_ms:.0f} ms "
          f"({fixed} servers)")
    print(f"server-seconds {scaled.server_s / constant.server_s:.1%}, p99 {scaled.p99_ms / constant.p99_ms:.2f} times")
    if arguments.picture:
        Path(arguments.picture).write_text(picture(scaled.shown, fixed))


APPLICATION = """
import time
def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
SURGE = """
[pools.app.queue]
size = 4000
timeout = 30
[pools.app.health]
interval = 1.0
[pools.app.scaling]
command = ["{python}", "-m", "gunicorn", {more} "-k", "gthread", "--threads", "8", "--bind", "{{address}}", "site_app:app"]
directory = "{folder}"
log = "{folder}/servers.log"
min = 1
max = 6
target = 4
max_connections = 8
"""


class Clients:
    """An open load: requests come when they come, each on a connection that is free."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[tuple[float, float]] = []  # when asked, how long it took
        self.errors: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, rate: float, seconds: float) -> None:
        """So many requests a second, evenly."""
        begun = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            task = asyncio.create_task(self._ask())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        asked = time.monotonic()
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            length = re.search(rb"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            if b" 200 " not in head:
                self.errors.append(head.split(b"\r\n")[0].decode())
            self._idle.append((reader, writer))
            self.answers.append((asked, time.monotonic() - asked))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as exc:
            self.errors.append(repr(exc))


def p99(times: Sequence[float]) -> float:
    return percentile(sorted(times), 99)


async def load_and_look(balancer: Balancer) -> None:
    clients = Clients(balancer.address[1])

    def running() -> int:
        return len(usable(balancer.master))

    while not running():
        await asyncio.sleep(0.1)
    await clients.load(5, 20)
    surge = time.monotonic()
    await clients.load(200, 40)
    most, calm = running(), time.monotonic()
    while running() > 1 and time.monotonic() < calm + 240:
        await clients.load(5, 1)
    await clients.load(5, 5)
    await clients.end()
    by_second: dict[int, list[float]] = {}
    for asked, took in clients.answers:
        by_second.setdefault(int(asked - surge), []).append(took)
    good = next((second for second in range(35) if p99([took for later in range(second, second + 5)
                                                         for took in by_second.get(later, [])]) < 0.15), None)
    started = [float(text) for text in re.findall(r"serves: ready after ([0-9.]+) s", balancer.log())]
    print(f"{len(clients.answers)} answers, {len(clients.errors)} errors {clients.errors[:3]}")
    print(f"p99 by second from the surge on, ms: {[round(1000 * p99(by_second.get(second, []))) for second in range(20)]}")
    print(f"p99 under 150 ms from second {good} on, over 5 s; processes start in {min(started):.1f} to "
          f"{max(started):.1f} s")
    print(f"{most} servers at the end of the load, {running()} {time.monotonic() - calm:.0f} s later")


def surge(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site_app.py").write_text(APPLICATION)
        more = "".join(f"{json.dumps(word)}, " for word in NO_CONTROL_SOCKET)
        with Balancer(folder, SURGE.format(python=sys.executable, folder=folder, more=more), PROXY, workers=2) as balancer:
            asyncio.run(load_and_look(balancer))
            print(*(line for line in balancer.log().splitlines() if "wanted, before" in line), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("day")
    one.add_argument("--speed", type=float, default=1.0)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--picture")
    one.set_defaults(run=day)
    commands.add_parser("surge").set_defaults(run=surge)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        arguments.run(arguments)


if __name__ == "__main__":
    main()
