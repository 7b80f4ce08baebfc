"""Kills, reloads and restarts of servers, many in a row and under load: what is lost is what a killed worker had, and no more."""
from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterable, Sequence

import pytest

from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.view import InstanceView
from tests.support import processes
from tests.support.balancer import FRONT_ENDS, GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, fetch
from tests.support.client_sockets import connections
from tests.support.instances import instances
from tests.support.kept_load import Exchange, KeptLoad
from tests.support.load import Load
from tests.support.moody import CHECK, MoodyOrigin
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.standstill import Standstill
from tests.support.waiting import wait_until

HEALTH = f'[pools.web.health]\npath = "{CHECK}"\ninterval = 0.3\nfast_interval = 0.1\ntimeout = 20\nrise = 2\nfall = 2\n'
EJECTED_FOR_GOOD = "panic_threshold = 0\n[pools.web.ejection]\nfailures = 2\nseconds = 600\n"
CONTROLLER_BACK_S = 2.0

# How a connection ends that was in a killed worker. Anything else, above all an answer that is not 200, is not its doing.
BROKEN_OFF = re.compile(r"(Truncated|ConnectionResetError|BrokenPipeError)\b")


# -- what is seen of an instance from outside -------------------------------------------------------------------------


def instance(balancer: Balancer) -> InstanceView:
    """The instance as `prefork-lb status` shows it, without the time that a command takes to start."""
    return next(found for found in instances() if found.master == balancer.master)


def server_of(balancer: Balancer, address: str) -> tuple[str, str, bool]:
    """State, check, and whether it is ejected."""
    server = next(server for server in instance(balancer).servers if server.address == address)
    is_ejected = not server.usable and server.state == "ready" and server.check in ("none", "up")
    return server.state, server.check, is_ejected


def told(balancer: Balancer, *words: str) -> str:
    """What `prefork-lb WORDS` says."""
    done = balancer.by_hand(*words)
    assert done.returncode == 0, done
    return done.stdout


def wait_for_controller(balancer: Balancer, seconds: float = 20.0) -> int:
    return wait_until(lambda: instance(balancer).controller, f"a controller\n{balancer.log()[-2000:]}", seconds)


def controllers(segment: str, passed_over: frozenset[int] = frozenset()) -> list[int]:
    """The controllers of this segment that are at work. One that finds another's lock ends before it handles signals."""
    found = []
    for pid in running() - passed_over:
        words = processes.command_line(pid)
        if "prefork_lb.controller" in words and segment in words and processes.catches(pid, signal.SIGTERM):
            found.append(pid)
    return [pid for pid in found if processes.is_running(pid)]


def running() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


class ControllerWatch(threading.Thread):
    """Looks again and again how many controllers there are."""

    def __init__(self, segment: str) -> None:
        super().__init__(daemon=True)
        self._segment = segment
        self._others = frozenset(running() - set(controllers(segment)))  # so that a look costs next to nothing
        self._end = threading.Event()
        self.seen: set[int] = set()
        self.several: list[list[int]] = []

    def run(self) -> None:
        while not self._end.wait(0.02):
            now = controllers(self._segment, self._others)
            self.seen.update(now)
            if len(now) > 1:
                self.several.append(now)

    def __enter__(self) -> ControllerWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join(20)


def waited_s(pids: Iterable[int]) -> float:
    """Seconds that these processes were ready to run, and others ran."""
    return sum(map(processes.threads_waited_for_cpu, pids))


def kill_and_count(pid: int, port: int) -> int:
    """SIGKILL wherever the process is right now; how many clients' connections it had then."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: processes.is_stopped(pid) or not processes.is_running(pid), f"{pid} stands still", every=0.0005)
    count = connections(pid, port)
    os.kill(pid, signal.SIGKILL)
    return count


def burst_is_within_one(balancer: Balancer, origin: Origin, count: int) -> None:
    with origin.released_at_end(), Burst(balancer.address, count) as burst:
        origin.wait_for_in_flight(count)
        assert origin.spread <= 1, origin
        origin.release()
        assert burst.statuses() == [200] * count
    assert set(balancer.wait_until_idle().in_flight.values()) == {0}


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("front_end", "kills", "seed"), [(PROXY, 32, 100), (GTHREAD, 16, 101)], ids=["ProxyWorker", "gthread"])
def test_kills_of_workers_and_controller_lose_what_the_killed_had(rig: Rig, front_end: FrontEnd, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    origin = rig.origin(4)
    balancer = rig.balancer(pool_text(origin.addresses, more="[pools.web.ejection]\nfailures = 0\n") + HEALTH.replace(CHECK, "/"),
                            front_end, workers=3, extra=["--preload"])
    segment, port = instance(balancer).segment, balancer.address[1]
    wait_for_controller(balancer)
    lost, killed_controllers, back = 0, 0, 0.0
    kept = (Exchange("/sleep?seconds=0.01&n=40", length=40),)
    with ControllerWatch(segment) as watch:
        with Load(balancer.address, 3, "/sleep?seconds=0.005", seed=seed, pause_s=0.005) as load, \
                KeptLoad(balancer.address, 3, kept, pause_s=0.005) as keeping:
            for _ in range(kills):
                load.wait_for_successes(rng.randrange(1, 20))
                time.sleep(rng.uniform(0, 0.01))  # the random moment
                workers = [worker.pid for worker in instance(balancer).workers]
                if workers and rng.random() < 0.75:
                    lost += kill_and_count(rng.choice(workers), port)
                    continue
                victim = wait_for_controller(balancer)
                with Standstill() as standstill:
                    os.kill(victim, signal.SIGKILL)
                    killed_at, waited_before = time.monotonic(), waited_s(workers)
                    killed_controllers += 1
                    if workers and rng.random() < 0.3:  # and the worker that would start another one
                        lost += kill_and_count(workers[0], port)
                    wait_until(lambda gone=victim: instance(balancer).controller not in (0, gone), "another controller")
                    took = time.monotonic() - killed_at
                # What the machine did not let those run that the restart waits for is not the balancer's doing.
                waited = waited_s([*workers, instance(balancer).controller]) - waited_before
                back = max(back, took - max(waited, 0) - standstill.longest_s)
            load.wait_for_successes(50)
            keeping.wait_for(50)
        failures = [failure.what for failure in load.failures] + keeping.failures
        assert [failure for failure in failures if not BROKEN_OFF.match(failure)] == []
        assert 0 < len(failures) <= lost
        balancer.wait_for_workers(3)
        burst_is_within_one(balancer, origin, 64)
        wait_until(lambda: len(found := controllers(segment)) == 1 and watch.seen.issuperset(found), "one controller in the end")
    assert watch.several == [] and killed_controllers
    assert back <= CONTROLLER_BACK_S


# -- reloads ----------------------------------------------------------------------------------------------------------

BAD = (
    ("[pools.web\nservers = ", r"prefork_lb\.toml:1"),
    ('[pools.web]\nservers = ["127.0.0.1:1"]\npolici = "first"\n', r"prefork_lb\.toml:3: pools\.web\.polici"),
    ('[pools.web]\nservers = ["127.0.0.1:1", "127.0.0.1:1"]\n', r"prefork_lb\.toml:2: pools\.web\.servers\[1\]"),
)


def some_configuration(rng: random.Random, stay: Sequence[str], others: Sequence[str]) -> tuple[str, set[str]]:
    """A configuration in which `stay` are checked and may be ejected, and the servers that it names."""
    named = [*stay, *rng.sample(others, rng.randint(1, len(others)))]
    rng.shuffle(named)
    servers = [f'{{ address = "{address}", weight = {rng.randint(1, 9)} }}' for address in named]
    policy = rng.choice(["least-connections", "round-robin", "weighted-round-robin", "random", "power-of-two"])
    sections = [
        f"slow_start = {rng.choice([0, 1, 30])}\npanic_threshold = 0",
        f"[pools.web.retries]\nattempts = {rng.randint(1, 4)}\nbudget = {rng.randint(0, 50)}",
        f"[pools.web.ejection]\nfailures = {rng.randint(2, 9)}\nseconds = 600\nmax_ejected = {rng.choice([50, 100])}",
        f'[pools.web.health]\npath = "{CHECK}"\ninterval = {rng.choice([0.2, 5])}\nfast_interval = 0.1\n'
        "timeout = 20\n"
        f"rise = {rng.randint(1, 3)}\nfall = {rng.randint(1, 3)}",
    ]
    return pool_text(servers, policy, more="\n".join(sections)), set(named)


@pytest.mark.slow
@pytest.mark.parametrize("front_end", [PROXY], ids=str)
def test_forty_reloads_in_a_row_fail_no_request_and_forget_no_server(rig: Rig, front_end: FrontEnd) -> None:
    """More than there are rows for workers (32): a row that is not given back shows."""
    rng = random.Random(50)
    with MoodyOrigin(7) as origin:
        drained, down, ejected, *_ = stay = origin.addresses[:4]
        others = origin.addresses[4:]
        origin.checks[1], origin.moods[2] = 503, 500
        text = pool_text(stay, more=EJECTED_FOR_GOOD + HEALTH)
        balancer = rig.balancer(text, front_end, workers=1)
        told(balancer, "drain", drained)
        wait_until(lambda: server_of(balancer, down)[1] == "down", "the checks find it")
        wait_until(lambda: fetch(balancer.address).status and server_of(balancer, ejected)[2], "it is ejected")
        controller = wait_for_controller(balancer)
        kept, start, named = (Exchange("/", length=8),), len(origin.seen), set(stay)
        with Load(balancer.address, 2, "/", pause_s=0.005) as load, KeptLoad(balancer.address, 2, kept, 0.005) as keeping:
            for number in range(40):
                said = len(balancer.log())
                if number % 3 == 2:
                    text, why = BAD[number // 3 % len(BAD)]
                else:
                    (text, named), why = some_configuration(rng, stay, others), ""
                balancer.config_file.write_text(text)
                balancer.reload()
                log = balancer.log()[said:]
                assert bool(re.search(why, log)) and ("stays in force" in log) == bool(why), log
                assert [server_of(balancer, address) for address in (drained, down, ejected)] == [
                    ("drain", "up", False), ("ready", "down", False), ("ready", "up", True)], (number, text)
                load.wait_for_successes(5)
                assert load.failures == [] and keeping.failures == [], (number, text)
            keeping.wait_for(20)
        assert [origin.share(index, start) for index in range(3)] == [0, 0, 0], "they have had no request"
        assert all(origin.share(index, start) for index in range(3, 7)), "the others have been used, now and then"
        balancer.wait_for_workers(1)
        assert balancer.wait_until_idle().in_flight.keys() >= named
        wait_until(lambda: {server.address for server in instance(balancer).servers} == named, "only those of the last file")
        assert wait_for_controller(balancer) == controller, "it has been the same one all the time"
        assert "Traceback" not in balancer.log()


# -- servers that are restarted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("front_end", "policy"), [
    (PROXY, "weighted-round-robin"), (GTHREAD, "least-connections"),
])
def test_servers_restarted_one_after_the_other_fail_no_request(rig: Rig, front_end: FrontEnd, policy: str) -> None:
    origin = rig.origin(4)
    servers = [f'{{ address = "{address}", weight = {1 + number % 3} }}' for number, address in enumerate(origin.addresses)]
    # Without retries, so that nothing hides a request that went to a server that was stopped.
    text = pool_text(servers, policy, more="[pools.web.retries]\nattempts = 1\n")
    balancer = rig.balancer(text, front_end, workers=2)
    kept = (Exchange("/sleep?seconds=0.2&n=40", length=40), Exchange("/bytes?n=300", length=300))
    with Load(balancer.address, 6, "/sleep?seconds=0.2") as load, KeptLoad(balancer.address, 4, kept, pause_s=0.02) as keeping:
        for index, address in enumerate(origin.addresses):
            load.wait_for_successes(6)
            assert "nothing in flight" in told(balancer, "drain", address, "--wait")
            server = origin.servers[index]
            served = server.requests
            origin.stop_server(index)
            load.wait_for_successes(12)
            origin.restart_server(index)
            assert server.requests == served, "between drain and ready it has had none"
            told(balancer, "ready", address)
            wait_until(lambda: server.requests > served, f"{address} is used again")  # noqa: B023
    assert load.failures == [] and keeping.failures == []
    told_of = [line for line in balancer.log().splitlines() if any(address in line for address in origin.addresses)]
    assert not any("[WARNING]" in line for line in told_of), "no attempt failed, none was made again"
    assert set(balancer.wait_until_idle().in_flight.values()) == {0}


# -- the master's death -----------------------------------------------------------------------------------------------


def test_after_a_killed_master_nothing_of_it_is_left_by_the_next_start(rig: Rig) -> None:
    """Of a ProxyWorker's instance with checks: processes, shared memory, and the files beside it."""
    with MoodyOrigin(2) as origin:
        config = pool_text(origin.addresses) + HEALTH
        killed = rig.balancer(config, PROXY, workers=2)
        controller, workers, segment = wait_for_controller(killed), killed.workers(), instance(killed).segment
        process = killed.process
        assert process is not None
        with Load(killed.address, 2, "/"):
            process.kill()
            process.wait()
        wait_until(lambda: not any(map(processes.is_running, [controller, *workers])), "workers and controller end")
        assert controllers(segment) == []
        balancer = rig.balancer(config, PROXY, workers=2)
        assert list(DIRECTORY.glob(f"{segment}*")) == []
        assert sum(balancer.status().in_flight.values()) == 0
        checked = list(origin.checked)
        wait_for_controller(balancer)
        wait_until(lambda: min(map(int.__sub__, origin.checked, checked)) > 1, "servers are checked again")
        master = balancer.master
        balancer.stop(signal.SIGTERM)
        assert list(DIRECTORY.glob(f"prefork-lb-*-{master}-*")) == []


# -- every worker class -----------------------------------------------------------------------------------------------


async def failing(origin: MoodyOrigin, index: int) -> int:
    """From now on the server answers 500; how many requests there have been until now."""
    origin.moods[index] = 500
    return len(origin.seen)


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=str)
def test_checks_ejection_and_drain_under_every_worker_class(rig: Rig, front_end: FrontEnd) -> None:
    with MoodyOrigin(4) as origin:
        drained, down, ejected, _ = origin.addresses
        text = pool_text(origin.addresses, more=EJECTED_FOR_GOOD + HEALTH)
        balancer = rig.balancer(text, front_end, workers=2)
        with Load(balancer.address, 2, "/", pause_s=0.005) as load:
            load.wait_for_successes(20)
            told(balancer, "drain", drained, "--wait")
            origin.checks[1] = 503
            wait_until(lambda: server_of(balancer, down)[1] == "down", "the checks find it")
            since = origin.call(failing(origin, 2))
            wait_until(lambda: server_of(balancer, ejected)[2], "it is ejected")
            # Requests that were on their way are over, and have been noted by their clients.
            wait_until(lambda: not any(map(balancer.status().in_flight.get, (drained, down, ejected))), "they are idle")
            wait_until(lambda: len(load.failures) == origin.share(2, since), lambda: f"what failed: {load.failures}")
            start, failed = len(origin.seen), len(load.failures)
            load.wait_for_successes(40)
            assert len(load.failures) == failed
        # The 500s that it took to eject it, and those of requests that had been sent to it by then.
        assert all(failure.what.startswith("500") for failure in load.failures) and 2 <= len(load.failures) <= 2 + 1
        assert [origin.share(index, start) for index in range(3)] == [0, 0, 0]
        origin.checks[1], start = "well", len(origin.seen)
        told(balancer, "ready", drained)
        wait_until(lambda: server_of(balancer, down)[1] == "up", "the checks find it well")
        with Load(balancer.address, 2, "/") as load:
            load.wait_for_successes(60)
        assert load.failures == [] and min(origin.share(index, start) for index in (0, 1, 3)) > 0 == origin.share(2, start)
        balancer.wait_until_idle()
