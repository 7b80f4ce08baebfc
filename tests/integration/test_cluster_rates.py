"""Three balancers that share through a real store keep the rate of a key together."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import fetch
from tests.support.instances import instances
from tests.support.rig import Rig
from tests.support.store import REDIS_SERVER, WHY_NOT, RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason=WHY_NOT)

NAMES = ("a", "b", "c")
PER_SECOND, BURST = 20, 5
ROUTE = f'''
[[routes]]
pool = "web"
rate = {{ key = "header:X-Key", per_second = {PER_SECOND}, burst = {BURST} }}
'''
WINDOW_S, PATIENCE_S = 2.5, 60.0


class Demand:
    """Requests of one key, from threads that each ask one balancer without a pause; how many were let through."""

    def __init__(self) -> None:
        self.passed = 0
        self.wrong: list[int] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def running(self, balancers: Sequence[Balancer]) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(balancer,)) for balancer in balancers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, balancer: Balancer) -> None:
        while not self._stop.is_set():
            status = fetch(balancer.address, fields=[("X-Key", "k")]).status
            with self._lock:
                self.passed += status == 200
                if status not in (200, 429):
                    self.wrong.append(status)
            self._stop.wait(0.01)

    def keeps_the_rate(self) -> bool:
        """Whether in a while as much is let through as one balancer would let through, within a tenth. The balancers may just
        have come together, or be too slow on a busy machine for a moment to hear of each other."""
        begun, before = time.monotonic(), self.passed
        self._stop.wait(WINDOW_S)
        passed, allowed = self.passed - before, PER_SECOND * (time.monotonic() - begun)
        return 0.9 * allowed <= passed <= 1.1 * (allowed + BURST)


def are_together(balancer: Balancer) -> bool:
    view = next(each for each in instances() if each.master == balancer.master)
    return view.together and tuple(each.name for each in view.balancers) == NAMES


def test_three_balancers_keep_the_rate_of_a_key_together(rig: Rig) -> None:
    with RedisServer(rig.folder) as store:
        text = pool_text(rig.origin(1).addresses) + ROUTE + f'[cluster]\nurl = "{store.url}"\nbalancer = "%s"\n'
        balancers = [rig.balancer(text % name, PROXY, workers=1) for name in NAMES]
        wait_until(lambda: all(map(are_together, balancers)), "all three share", PATIENCE_S)
        for asked in (balancers, [balancers[0]] * 4 + [balancers[1]]):
            demand = Demand()
            with demand.running(asked):
                wait_until(demand.keeps_the_rate, "as much is let through as one balancer would let through", PATIENCE_S)
            assert demand.wrong == []
