"""The numbers add up: what is counted is what clients saw, whatever happened to workers meanwhile."""
from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from prefork_lb.observe.metrics import exposition
from prefork_lb.shared.finding import find
from prefork_lb.shared.view import InstanceView, PoolView, view
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Truncated, fetch
from tests.support.origin import Origin
from tests.support.ports import refusing_address
from tests.support.rig import Rig
from tests.support.waiting import wait_until

ROUNDS, ROUND, CLIENTS, HELD, WORKERS = 5, 200, 8, 8, 4
PATIENCE_S = 20.0
BODY = b"x" * 700

Kind = tuple[str, str, str]  # host, target, method
KINDS: tuple[Kind, ...] = (
    ("web", "/", "GET"), ("web", "/bytes?n=3000&framing=chunked", "GET"), ("web", "/", "HEAD"), ("web", "/upload", "POST"),
    ("web", "/status?code=404", "GET"), ("web", "/status?code=500", "GET"), ("web", "/status?code=304", "GET"),
    ("none", "/", "GET"), ("web", "*", "OPTIONS"))


class Seen:
    """What clients saw: answers by pool and class, bytes of bodies, and requests without an answer."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._lock = threading.Lock()
        self.codes: Counter[tuple[str, str]] = Counter()
        self.bytes_in = self.bytes_out = self.lost = 0

    def ask(self, kind: Kind) -> None:
        """One request, on a connection of its own."""
        host, target, method = kind
        fields = [("Host", f"{host}.test")] + ([("Max-Forwards", "0")] if method == "OPTIONS" else [])
        body = BODY if method == "POST" else b""
        try:
            answer = fetch(self._balancer.address, target, method, fields=fields, body=body, timeout=PATIENCE_S)
        except (OSError, Truncated):
            with self._lock:
                self.lost += 1
            return
        with self._lock:
            # An answer to OPTIONS with Max-Forwards: 0 is of no pool.
            self.codes["" if method == "OPTIONS" else host, f"{answer.status // 100}xx"] += 1
            if host == "web":
                self.bytes_in += len(body)
                self.bytes_out += len(answer.body)

    @contextmanager
    def asking(self, kinds: list[Kind], clients: int) -> Iterator[None]:
        """All these requests while the block runs; it ends when they have ended."""
        left = iter(kinds)

        def client() -> None:
            while True:
                with self._lock:
                    kind = next(left, None)
                if kind is None:
                    return
                self.ask(kind)

        threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(3 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)


def look(balancer: Balancer) -> tuple[InstanceView, str]:
    segment = find(balancer.master)
    assert segment is not None
    try:
        return view(segment), exposition(segment, "", {})[1].decode()
    finally:
        segment.close()


def pool(shown: InstanceView, name: str) -> PoolView:
    return next(pool for pool in shown.pools if pool.name == name)


def counted(shown: InstanceView) -> Counter[tuple[str, str]]:
    """Answers by pool and class. Without a pool only 2xx: the balancer's start is awaited with requests that get 400."""
    found: Counter[tuple[str, str]] = Counter()
    for server in shown.servers:
        assert server.numbers is not None
        for code, number in server.numbers.codes.items():
            found[server.pool, code] += number
    for each in shown.pools:
        assert each.numbers is not None
        for code, number in each.numbers.own.items():
            found[each.name, f"{code[0]}xx"] += number
    assert shown.numbers is not None
    found["", "2xx"] = shown.numbers.codes["2xx"]
    return +found


def check(balancer: Balancer, seen: Seen) -> None:
    """All that clients saw is counted, and nothing else. A worker counts an answer just after it has sent it, its time last."""
    requests = {name: sum(number for (each, _), number in seen.codes.items() if each == name) for name in ("web", "none")}

    def times() -> dict[str, int]:
        return {each.name: sum(each.numbers.buckets) for each in look(balancer)[0].pools if each.numbers is not None}

    wait_until(lambda: counted(look(balancer)[0]) == +seen.codes and times() == requests,
               lambda: f"counted is what clients saw: {counted(look(balancer)[0])}, {times()}; {seen.codes}", PATIENCE_S)
    shown, text = look(balancer)
    numbers = [server.numbers for server in shown.servers if server.numbers is not None]
    assert (sum(each.bytes_in for each in numbers), sum(each.bytes_out for each in numbers)) == (seen.bytes_in, seen.bytes_out)
    for name, number in requests.items():
        assert f'prefork_lb_request_seconds_count{{pool="{name}"}} {float(number)}\n' in text


def kill_a_worker(balancer: Balancer, origin: Origin, seen: Seen) -> None:
    """Requests are held on all workers, and one worker is killed with those that it has."""
    before, lost = balancer.wait_for_workers(WORKERS, seconds=PATIENCE_S), seen.lost  # those of before a reload have ended
    with origin.released_at_end(), seen.asking([("web", "/hold", "GET")] * HELD, HELD):
        origin.wait_for_in_flight(HELD)
        claims = balancer.status().workers
        victim = max(before, key=lambda pid: claims[pid])
        balancer.kill_worker(victim)
        wait_until(lambda: seen.lost - lost == claims[victim], f"the {claims[victim]} clients of the killed worker see it",
                   PATIENCE_S)
        origin.release()
    balancer.wait_for_workers(WORKERS, [victim], PATIENCE_S)


@pytest.fixture
def refusing() -> Iterator[str]:
    with refusing_address() as address:
        yield address


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_what_is_counted_is_what_clients_saw_whatever_happens_to_workers(
    rig: Rig, front_end: FrontEnd, refusing: str
) -> None:
    origin = rig.origin(2)
    text = (pool_text(origin.addresses, more="[pools.web.ejection]\nfailures = 0")
            + pool_text([refusing], name="none")
            + '[[routes]]\nhosts = ["web.test"]\npool = "web"\n[[routes]]\nhosts = ["none.test"]\npool = "none"\n'
            + f'[admin]\nbind = "unix:{rig.folder}/admin.sock"\n')
    balancer = rig.balancer(text, front_end, workers=WORKERS)
    seen = Seen(balancer)
    during: list[Callable[[], object]] = [lambda: None, balancer.reload]
    for number in range(ROUNDS):
        with seen.asking([KINDS[n % len(KINDS)] for n in range(ROUND)], CLIENTS):
            during[number % 2]()
        check(balancer, seen)
        kill_a_worker(balancer, origin, seen)
        check(balancer, seen)
    shown = balancer.wait_until_idle(PATIENCE_S)
    assert shown.is_idle
    final, _ = look(balancer)
    assert (final.workers_died, pool(final, "none").waiting) == (ROUNDS, 0)
    assert seen.codes["none", "5xx"] and seen.codes["", "2xx"] and seen.lost


def test_a_worker_that_dies_under_load_takes_no_more_than_its_own_requests_with_it(rig: Rig) -> None:
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "unix:{rig.folder}/admin.sock"\n', PROXY,
                            workers=WORKERS)
    seen, kills = Seen(balancer), 3
    with seen.asking([("web", "/", "GET")] * ROUND, CLIENTS):
        for _ in range(kills):
            victim = balancer.workers()[0]
            balancer.kill_worker(victim, signal.SIGKILL)
            balancer.wait_for_workers(WORKERS, [victim], PATIENCE_S)
    balancer.wait_until_idle(PATIENCE_S)
    answered = sum(seen.codes.values())
    assert answered + seen.lost == ROUND
    # Of a killed worker a client may have its answer though it is not counted, or the other way round.
    wait_until(lambda: abs(counted(look(balancer)[0]).total() - answered) <= kills * CLIENTS,
               lambda: f"{answered} answers are counted, but for those of killed workers: {counted(look(balancer)[0])}",
               PATIENCE_S)
