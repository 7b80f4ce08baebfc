"""Servers that are added and removed at run time, under load, over four workers."""
from __future__ import annotations

import contextlib
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.shared.finding import open_segment
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table_lookup import owner_of
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, fetch
from tests.support.instances import instance_of
from tests.support.kept_load import Exchange, KeptLoad
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS, WORKERS = 5, 4
SECONDS = 20.0
# How a connection ends that was in a killed worker.
BROKEN_OFF = re.compile(r"(Truncated|ConnectionResetError|BrokenPipeError)\b")
FRONT_ENDS = pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)


class Operator:
    """Adds and removes servers of a pool, without the time that a command takes to start."""

    def __init__(self, balancer: Balancer, pool: str = "web") -> None:
        segment = open_segment(balancer.status().segment)
        assert segment is not None
        self.segment, self._pool = segment, pool
        self.ledger = Ledger(segment, takes_row=False)
        self._steering = Steering(segment, self.ledger, States(segment))

    def add(self, address: str, weight: int = 1) -> None:
        self._steering.add_server(self._pool, address, weight, who="test")

    def remove(self, address: str) -> int:
        return self._steering.remove_server(self._pool, address, who="test")

    def wait_until_left(self, address: str, slot: int) -> None:
        """Wait until no request is left on a removed server."""
        wait_until(lambda: owner_of(self.segment, slot) != (self._pool, address) or not self.ledger.totals[slot],
                   f"no request on {address}", SECONDS)


def members(balancer: Balancer) -> set[str]:
    return {server.address for server in instance_of(balancer.master).servers}


@contextlib.contextmanager
def load_on(balancer: Balancer) -> Iterator[tuple[Load, KeptLoad]]:
    kept = (Exchange("/sleep?seconds=0.01&n=40", length=40),)
    with Load(balancer.address, 3, "/sleep?seconds=0.005", pause_s=0.005) as load, \
            KeptLoad(balancer.address, 3, kept, pause_s=0.005) as keeping:
        yield load, keeping


def wait_for_members(balancer: Balancer, present: set[str]) -> None:
    """A worker has joined a moment before it has put the configuration into force."""
    wait_until(lambda: members(balancer) == present, lambda: f"{members(balancer)}, expected {present}", SECONDS)


def check_spread(balancer: Balancer, origin: Origin, present: set[str], count: int = 20) -> None:
    """As many held requests on each server that is there, and none on the others."""
    balancer.wait_until_idle(SECONDS)
    with origin.released_at_end(), Burst(balancer.address, count) as burst:
        origin.wait_for_in_flight(count)
        on = dict(zip(origin.addresses, origin.in_flight, strict=True))
        counts = [on[address] for address in present]
        assert max(counts) - min(counts) <= 1 and sum(counts) == count, on
        origin.release()
        assert burst.statuses() == [200] * count
    balancer.wait_until_idle(SECONDS)


@FRONT_ENDS
def test_a_hundred_changes_under_load_fail_no_request(rig: Rig, front_end: FrontEnd) -> None:
    rng = random.Random(7)
    origin = rig.origin(SERVERS)
    present = set(origin.addresses[:2])
    balancer = rig.balancer(pool_text(sorted(present)), front_end, workers=WORKERS)
    operator = Operator(balancer)
    with load_on(balancer) as (load, keeping):
        for number in range(100):
            absent = set(origin.addresses) - present
            if len(present) == 1 or (absent and rng.random() < 0.5):
                operator.add(address := rng.choice(sorted(absent)))
                present.add(address)
            else:
                slot = operator.remove(address := rng.choice(sorted(present)))
                present.discard(address)
                if number % 10 == 0:
                    server = origin.servers[origin.addresses.index(address)]
                    operator.wait_until_left(address, slot)
                    before = server.requests
                    load.wait_for_successes(5, SECONDS)
                    assert server.requests == before, "a removed server gets nothing"
                    wait_until(lambda server=server: not server.links, "its idle connections are closed", SECONDS)
            load.wait_for_successes(2, SECONDS)
            assert members(balancer) == present
        assert load.failures == [] and keeping.failures == []
    check_spread(balancer, origin, present)
    for address in set(origin.addresses) - present:
        operator.add(address)
    check_spread(balancer, origin, set(origin.addresses))


@FRONT_ENDS
def test_kills_and_reloads_in_between_lose_no_change(rig: Rig, front_end: FrontEnd) -> None:
    rng = random.Random(8)
    origin = rig.origin(SERVERS)
    named = set(origin.addresses[:2])
    present = set(named)
    balancer = rig.balancer(pool_text(sorted(named)), front_end, workers=WORKERS)
    operator = Operator(balancer)
    with load_on(balancer) as (load, keeping):
        for number in range(30):
            absent = set(origin.addresses) - present
            if len(present) == 1 or (absent and rng.random() < 0.5):
                operator.add(address := rng.choice(sorted(absent)))
                present.add(address)
            else:
                operator.remove(address := rng.choice(sorted(present)))
                present.discard(address)
            if number % 10 == 5:
                balancer.reload()
                present |= named  # those of the configuration are back
            elif number % 3 == 0:
                balancer.kill_worker(rng.choice(balancer.workers()))
            elif number % 3 == 1:
                status = balancer.status().instance
                if status["controller"]:
                    with contextlib.suppress(ProcessLookupError):  # it was killed before, and no other one is there yet
                        os.kill(status["controller"], signal.SIGKILL)
            load.wait_for_successes(2, SECONDS)
            wait_for_members(balancer, present)
        failures = [failure.what for failure in load.failures] + keeping.failures
        assert [failure for failure in failures if not BROKEN_OFF.match(failure)] == []
    balancer.wait_for_workers(WORKERS, seconds=SECONDS)
    check_spread(balancer, origin, present)


def test_a_restart_keeps_what_was_added_and_brings_back_what_was_removed(rig: Rig, tmp_path: Path) -> None:
    origin = rig.origin(3)
    first, second, third = origin.addresses
    state = tmp_path / "state.json"
    balancer = rig.balancer(pool_text([first, second], more=f'[state]\nfile = "{state}"\n'), PROXY, workers=2)
    assert balancer.by_hand("add", third, "--pool", "web", "--weight", "3").stdout == f"{third} (pool web): added\n"
    removed = balancer.by_hand("remove", second, "--wait")
    assert removed.stdout == f"{second} (pool web): removed, 0 in flight\n{second}: nothing in flight any more\n"
    assert members(balancer) == {first, third}
    wait_until(lambda: state.exists() and third in state.read_text(), "the state file has it", SECONDS)
    balancer.stop()
    balancer.start()
    assert members(balancer) == {first, second, third}
    shares = [fetch(balancer.address).served_by for _ in range(10)]
    assert [shares.count(f"origin-{number}") for number in range(3)] == [2, 2, 6]


def test_checks_begin_and_end_with_a_server(rig: Rig) -> None:
    origin = rig.origin(3)
    first, second, third = origin.addresses
    health = ('[pools.web.health]\nheaders = { X-Check = "1" }\ninterval = 0.1\nfast_interval = 0.1\ntimeout = 20\n'
              'rise = 2\nfall = 2\nstart = "checking"\n')
    balancer = rig.balancer(pool_text([first], more="panic_threshold = 0\n" + health), PROXY, workers=2)

    def check(address: str) -> str:
        return next(str(each["check"]) for each in balancer.status().instance["servers"] if each["address"] == address)

    def checks(index: int) -> int:
        return sum(arrival.server == index and arrival.values("X-Check") == ["1"] for arrival in list(origin.arrivals))

    wait_until(lambda: check(first) == "up", "the first is up", SECONDS)
    origin.stop_server(1)
    operator = Operator(balancer)
    operator.add(second)
    operator.add(third)
    wait_until(lambda: check(second) == "down" and check(third) == "up", "the checks find how they are", SECONDS)
    assert {fetch(balancer.address).served_by for _ in range(8)} == {"origin-0", "origin-2"}
    slot = operator.remove(third)
    operator.remove(second)
    operator.wait_until_left(third, slot)
    wait_until(lambda: not origin.servers[2].links, "its checks' connection is closed", SECONDS)

    def is_passed_over() -> bool:
        before, others = checks(2), checks(0)
        wait_until(lambda: checks(0) >= others + 5, "checks of the first go on", SECONDS)
        return checks(2) == before

    wait_until(is_passed_over, "a removed server is not checked any more", SECONDS)


USERS = [f"user-{number}" for number in range(40)]


def test_only_the_keys_of_a_removed_server_move(rig: Rig) -> None:
    origin = rig.origin(4)
    text = pool_text(origin.addresses[:3], "hash", more='key = "header:X-User"\n')
    balancer = rig.balancer(text, PROXY, workers=WORKERS)
    operator = Operator(balancer)

    def homes() -> dict[str, str | None]:
        return {user: fetch(balancer.address, fields=[("Host", "x"), ("X-User", user)]).served_by for user in USERS}

    before = homes()
    operator.remove(origin.addresses[1])
    after = homes()
    assert {user for user in USERS if before[user] != after[user]} == {user for user in USERS if before[user] == "origin-1"}
    assert "origin-1" not in after.values()
    operator.add(origin.addresses[1])
    assert homes() == before
    operator.add(origin.addresses[3])
    newest = homes()
    assert {newest[user] for user in USERS if newest[user] != before[user]} == {"origin-3"}


@pytest.mark.parametrize("on_failure", ["rebalance", "strict"])
def test_only_the_sessions_of_a_removed_server_move(rig: Rig, on_failure: str) -> None:
    origin = rig.origin(4)
    text = pool_text(origin.addresses[:3], more=f'[pools.web.sticky]\nmode = "cookie"\non_failure = "{on_failure}"\n')
    balancer = rig.balancer(text, PROXY, workers=WORKERS)
    operator = Operator(balancer)
    jars: dict[str, str] = {}

    def homes() -> dict[str, str | None]:
        found = {}
        for user in USERS:
            cookies = [("Cookie", jars[user])] if user in jars else []
            response = fetch(balancer.address, fields=[("Host", "x"), *cookies])
            assert response.status == 200
            if cookie := response.value("Set-Cookie"):
                jars[user] = cookie.partition(";")[0]
            found[user] = response.served_by
        return found

    before = homes()
    assert homes() == before
    operator.remove(origin.addresses[1])
    after = homes()
    assert {user for user in USERS if before[user] != after[user]} == {user for user in USERS if before[user] == "origin-1"}
    operator.add(origin.addresses[1])
    operator.add(origin.addresses[3])
    assert homes() == after
    jars.clear()
    assert set(homes().values()) == {f"origin-{number}" for number in range(4)}
