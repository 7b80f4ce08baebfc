"""gunicorn's upgrade (USR2): a new master beside the old one, one memory, one controller, and the way back."""
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from prefork_lb.shared.view import InstanceView
from tests.support import processes
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text, stopped
from tests.support.behaviors import behave, head
from tests.support.client import Burst, fetch
from tests.support.instances import instances
from tests.support.kept_load import Exchange, KeptLoad
from tests.support.load import Load
from tests.support.moody import CHECK
from tests.support.origin import Link, Origin, Request
from tests.support.rig import Rig
from tests.support.waiting import wait_until

WORKERS = 2
HEALTH = f'panic_threshold = 0\n[pools.web.health]\npath = "{CHECK}"\ninterval = 0.2\ntimeout = 20\nrise = 1\nfall = 1\n'
KEPT = (Exchange("/sleep?seconds=0.01&n=40", length=40),)
# gunicorn obeys WINCH as a daemon only. With a GUNICORN_FD and no GUNICORN_PID it is one that does not fork away.
AS_DAEMON = {"GUNICORN_FD": "none"}


class CheckedOrigin(Origin):
    """The scripted origin, with an answer to checks by server: `checks`."""

    def __init__(self, servers: int) -> None:
        super().__init__(servers, self._behave)
        self.checks = [200] * servers

    async def _behave(self, link: Link, request: Request) -> bool:
        if request.path != CHECK:
            return await behave(link, request)
        await link.send(head(link, self.checks[link.server.index], [("Content-Length", "0")]))
        return True

    def requests(self, index: int) -> int:
        """Of clients."""
        return sum(arrival.server == index and arrival.target != CHECK for arrival in list(self.arrivals))


@pytest.fixture
def origin() -> Iterator[CheckedOrigin]:
    with CheckedOrigin(4) as origin:
        yield origin


def start(rig: Rig, origin: Origin, front_end: FrontEnd = PROXY) -> Balancer:
    extra = ["--pid", "gunicorn.pid", "--daemon"]
    text = pool_text(origin.addresses, more=HEALTH) + f'[admin]\nbind = "unix:{rig.folder}/admin.sock"\n'
    return rig.balancer(text, front_end, workers=WORKERS, extra=extra, environ=AS_DAEMON)


def seen(segment: str) -> InstanceView:
    return next(found for found in instances() if found.segment == segment)


def answers(segment: str) -> int:
    """Requests that servers have answered, as they were counted."""
    return sum(server.numbers.answers for server in seen(segment).servers if server.numbers is not None)


def controllers(segment: str) -> list[int]:
    """The controllers of this segment that are at work. One that finds another's lock ends before it handles signals."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if {"prefork_lb.controller", segment} <= set(processes.command_line(pid))
            and processes.catches(pid, signal.SIGTERM) and processes.is_running(pid)]


def replaced(segment: str, old: int) -> int:
    """Wait until another controller than `old` is the only one; its pid."""
    wait_until(lambda: not processes.is_running(old), "the controller of the other master ends")
    [new] = wait_until(lambda: controllers(segment), "another one is at work")
    wait_until(lambda: seen(segment).controller == new, "it is known as such")
    return new


def told(balancer: Balancer, *words: str, master: int = 0) -> None:
    """`prefork-lb WORDS`, to this instance, whatever others run on the machine."""
    done = balancer.command(*words, "--master", str(master or balancer.master))
    assert done.returncode == 0, done


def drained_and_down(balancer: Balancer, origin: CheckedOrigin) -> str:
    """Server 0 is drained, server 1 is down by checks; the segment's name."""
    segment = next(found.segment for found in instances() if found.master == balancer.master)
    told(balancer, "drain", origin.addresses[0])
    origin.checks[1] = 503
    wait_for_check(segment, origin.addresses[1], "down")
    return segment


def wait_for_check(segment: str, address: str, check: str) -> None:
    wait_until(lambda: check in {server.check for server in seen(segment).servers if server.address == address},
               lambda: f"{address} is {check}: {seen(segment)}")


def states(segment: str, origin: Origin) -> list[tuple[str, str]]:
    """State and check of each server."""
    by_address = {server.address: (server.state, server.check) for server in seen(segment).servers}
    return [by_address[address] for address in origin.addresses]


KEPT_STATES = [("drain", "up"), ("ready", "down"), ("ready", "up"), ("ready", "up")]


def workers_of(master: int) -> list[int]:
    own = processes.command_line(master)
    same = [pid for pid in processes.children(master) if processes.command_line(pid) == own]
    return [pid for pid in same if processes.catches(pid, signal.SIGABRT)]


@contextlib.contextmanager
def upgraded(balancer: Balancer, segment: str) -> Iterator[int]:
    """A new master beside the one that runs, with its workers in the same instance; ends with the block. Its pid."""
    new_pid_file, old = balancer.folder / "gunicorn.pid.2", set(workers_of(balancer.master))
    os.kill(balancer.master, signal.SIGUSR2)
    wait_until(lambda: new_pid_file.exists() and new_pid_file.read_text().strip(), lambda: f"a new master\n{balancer.log()}")
    new = int(new_pid_file.read_text())
    try:
        wait_until(lambda: {worker.pid for worker in seen(segment).workers} - old >= set(workers_of(new)) != set()
                   and len(workers_of(new)) == WORKERS, lambda: f"its workers\n{balancer.log()}")
        yield new
    finally:
        rest = [new, *processes.children(new)]
        for pid in rest:
            if processes.is_running(pid):
                os.kill(pid, signal.SIGQUIT if pid == new else signal.SIGTERM)
        # A gthread worker whose thread pool is locked just when the signal comes stands still until its master kills it, after
        # graceful_timeout (30 s).
        wait_until(lambda: not any(map(processes.is_running, rest)), "the new master and its workers are gone", 45)


def held_by(workers: list[int], others: list[int], origin: CheckedOrigin, balancer: Balancer, segment: str, total: int) -> Burst:
    """8 requests more, held at their servers, in `workers`, since `others` stand still; `total` then."""
    with stopped(others):
        burst = Burst(balancer.address, 8)
        wait_until(lambda: sum(server.in_flight for server in seen(segment).servers) == total, lambda: str(seen(segment)))
    assert sum(worker.in_flight for worker in seen(segment).workers if worker.pid in workers) == 8
    wait_until(lambda: origin.in_flight == in_flight(segment, origin), lambda: f"as the origin has it: {origin}")
    return burst


def in_flight(segment: str, origin: Origin) -> list[int]:
    by_address = {server.address: server.in_flight for server in seen(segment).servers}
    return [by_address[address] for address in origin.addresses]


@pytest.mark.parametrize(("front_end", "how"), [
    (PROXY, signal.SIGTERM), (PROXY, signal.SIGWINCH), (PROXY, signal.SIGQUIT), (GTHREAD, signal.SIGTERM),
], ids=["TERM", "WINCH", "QUIT", "gthread-TERM"])
def test_a_new_master_takes_over_counts_states_and_controller(
    rig: Rig, origin: CheckedOrigin, front_end: FrontEnd, how: signal.Signals
) -> None:
    balancer = start(rig, origin, front_end)
    old_master, old = balancer.master, balancer.workers()
    segment = drained_and_down(balancer, origin)
    was = [origin.requests(0), origin.requests(1)]
    [controller] = controllers(segment)
    with Load(balancer.address, 2, "/sleep?seconds=0.01") as load, KeptLoad(balancer.address, 2, KEPT, pause_s=0.005) as kept:
        load.wait_for_successes(10)
        with upgraded(balancer, segment) as new_master:
            new = workers_of(new_master)
            assert [found.master for found in instances() if {old_master, new_master} & {found.master}] == [new_master]
            # The old controller may be of another version: the new master's workers have one of their own.
            new_controller = replaced(segment, controller)
            load.wait_for_successes(50)
            kept.wait_for(50)
            assert states(segment, origin) == KEPT_STATES
            if how == signal.SIGQUIT:  # which breaks off what the old workers have
                load.stop()
                kept.__exit__()
                wait_until(lambda: sum(in_flight(segment, origin)) == 0, "the load has ended")
                with origin.released_at_end():
                    lost = held_by(old, new, origin, balancer, segment, 8)
                    stays = held_by(new, old, origin, balancer, segment, 16)
                    assert in_flight(segment, origin) == [0, 0, 8, 8]
                    os.kill(old_master, how)
                    whole, broken = lost.responses()
                    assert (len(whole), len(broken)) == (0, 8)
                    wait_until(lambda: sum(in_flight(segment, origin)) == 8, "what the old ones had is given back")
                    assert origin.in_flight[2:] == in_flight(segment, origin)[2:]
                    origin.release()
                    assert stays.statuses() == [200] * 8
            else:
                os.kill(old_master, how)
            wait_until(lambda: not any(map(processes.is_running, old)), "the old workers end")
            if how == signal.SIGWINCH:
                assert processes.is_running(old_master)
                os.kill(old_master, signal.SIGTERM)
            wait_until(lambda: not processes.is_running(old_master), "the old master ends")
            with contextlib.nullcontext() if how != signal.SIGQUIT else Load(balancer.address, 2, "/sleep?seconds=0.01") as more:
                (more or load).wait_for_successes(50)
            assert states(segment, origin) == KEPT_STATES and [origin.requests(0), origin.requests(1)] == was
            # It is still at work, for the new master alone: what checks and commands say from now on holds.
            assert seen(segment).controller == new_controller and controllers(segment) == [new_controller]
            origin.checks[1:3] = 200, 503
            wait_for_check(segment, origin.addresses[1], "up")
            wait_for_check(segment, origin.addresses[2], "down")
            told(balancer, "ready", origin.addresses[0], master=new_master)
            wait_until(lambda: fetch(balancer.address).status == 200 and origin.requests(0) > was[0], "it is used again")
            load.stop()
            kept.__exit__()
            assert more is None or more.failures == []
            wait_until(lambda: sum(in_flight(segment, origin)) == 0, "nothing is in flight")
            assert {worker.pid for worker in seen(segment).workers} == set(new)
            if how != signal.SIGQUIT:
                wait_until(lambda: answers(segment) == sum(map(origin.requests, range(4))),
                           lambda: f"what the workers of both masters have answered is counted: {answers(segment)}", 20)
        wait_until(lambda: not processes.is_running(new_controller), "the controller ends with the last master")
    assert load.failures == [] and kept.failures == []


def test_the_way_back_to_the_old_master_and_a_second_upgrade(rig: Rig, origin: CheckedOrigin) -> None:
    balancer = start(rig, origin)
    segment = drained_and_down(balancer, origin)
    [controller] = controllers(segment)
    old = balancer.workers()
    with Load(balancer.address, 2, "/sleep?seconds=0.01") as load, KeptLoad(balancer.address, 2, KEPT, pause_s=0.005) as kept:
        for _ in range(2):
            with upgraded(balancer, segment) as new_master:
                controller = replaced(segment, controller)
                load.wait_for_successes(30)
                told(balancer, "maintenance", origin.addresses[3], master=new_master)
                os.kill(new_master, signal.SIGTERM)
                wait_until(lambda: not processes.is_running(new_master), "the new master ends")
            load.wait_for_successes(30)
            assert balancer.workers() == old and seen(segment).master == balancer.master
            assert states(segment, origin) == [*KEPT_STATES[:3], ("maintenance", "up")]
            controller = replaced(segment, controller)
            told(balancer, "ready", origin.addresses[3])
        # The old one is whole: it reloads, checks go on, and nothing of the others is left.
        balancer.reload()
        balancer.wait_for_workers(WORKERS, without=old)
        origin.checks[1:3] = 200, 503
        wait_for_check(segment, origin.addresses[1], "up")
        wait_for_check(segment, origin.addresses[2], "down")
        with upgraded(balancer, segment) as new_master:
            os.kill(balancer.master, signal.SIGTERM)
            assert balancer.process is not None
            balancer.process.wait(20)
            load.wait_for_successes(30)
            kept.wait_for(10)
            assert seen(segment).master == new_master
            assert states(segment, origin) == [("drain", "up"), ("ready", "up"), ("ready", "down"), ("ready", "up")]
            load.stop()
            kept.__exit__()
            wait_until(lambda: sum(in_flight(segment, origin)) == 0, "nothing is in flight")
    assert load.failures == [] and kept.failures == []
