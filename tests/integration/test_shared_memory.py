"""The memory of a running instance: what a reload finds no room for, and a file that somebody removes."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from prefork_lb.shared.finding import DIRECTORY, find
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rows import NoRowLeft
from prefork_lb.shared.view import InstanceView
from tests.support import processes
from tests.support.balancer import GTHREAD, PROXY, SETTINGS, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, fetch
from tests.support.instances import instances
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

REMOVED = "was removed while this instance runs"


def take_all_rows(balancer: Balancer) -> list[Ledger]:
    """Every row that is free belongs to this process from now on."""
    segment = find(balancer.master)
    assert segment is not None
    taken = []
    while True:
        try:
            taken.append(Ledger(segment))
        except NoRowLeft:
            return taken


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_a_reload_without_rows_for_its_workers_waits_for_those_of_the_old_ones(rig: Rig, front_end: FrontEnd) -> None:
    """gunicorn's master ends when a worker cannot load the application; so a worker that finds no row waits."""
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=2)
    old = balancer.workers()
    with origin.released_at_end(), Burst(balancer.address, 12) as burst:
        origin.wait_for_in_flight(12)
        assert take_all_rows(balancer)
        os.kill(balancer.master, signal.SIGHUP)
        wait_until(lambda: "rows for worker processes are in use" in balancer.log(), balancer.log, 20)
        origin.release()
        assert burst.statuses() == [200] * 12
    new = balancer.wait_for_workers(2, without=old, seconds=30)
    assert fetch(balancer.address).status == 200
    assert "App failed to load" not in balancer.log()
    assert {worker.pid for worker in instances_of(balancer).workers} == {*new, os.getpid()}


def instances_of(balancer: Balancer) -> InstanceView:
    [found] = [instance for instance in instances() if instance.master == balancer.master]
    return found


def test_more_workers_than_there_are_rows_for_are_refused_and_the_number_of_before_stays(rig: Rig) -> None:
    origin = rig.origin(1)
    text = "[listen]\nworkers = {}\n" + pool_text(origin.addresses)
    balancer = rig.balancer(text.format(2), workers=None)
    before = balancer.workers()
    balancer.config_file.write_text(text.format(17))
    warned = balancer.command("check", str(balancer.config_file))
    assert f"warning: gunicorn master {balancer.master}: a reload would keep what is in force: room for 14 workers only" in (
        warned.stderr)
    os.kill(balancer.master, signal.SIGHUP)
    balancer.wait_for_workers(2, without=before)
    assert "listen.workers: room for 14 workers only; 2 stay in force; restart gunicorn to make more" in balancer.log()
    balancer.config_file.write_text(text.format(3))
    os.kill(balancer.master, signal.SIGHUP)
    balancer.wait_for_workers(3, without=before)


def test_a_reload_that_is_refused_changes_nothing_in_shared_memory(rig: Rig) -> None:
    """No row taken twice, no server entered, no check forgotten."""
    origin = rig.origin(2)
    checked = pool_text(origin.addresses, more='[pools.web.health]\ntype = "tcp"\ninterval = 60\n')
    balancer = rig.balancer(checked, workers=2)
    wait_until(lambda: {server.check for server in instances_of(balancer).servers} == {"up"}, "all are checked")
    before = instances_of(balancer)
    many = [*origin.addresses, *(f"127.1.{number // 250}.{number % 250 + 1}:1" for number in range(300))]
    balancer.config_file.write_text(pool_text(many))
    warned = balancer.command("check", str(balancer.config_file))
    assert "a reload would keep what is in force: room for 256 servers only" in warned.stderr
    old = balancer.workers()
    os.kill(balancer.master, signal.SIGHUP)
    new = balancer.wait_for_workers(2, without=old)
    wait_until(lambda: not any(map(processes.is_running, old)), "the old workers have ended", 20)
    after = instances_of(balancer)
    assert sorted(worker.pid for worker in after.workers) == sorted(new), "a row each"
    assert [(server.address, server.check) for server in after.servers] == [(address, "up") for address in origin.addresses]
    assert after.generation == before.generation
    assert "room for 256 servers only; restart gunicorn to make more" in balancer.log()


CASES = [(PROXY, [], SETTINGS), (PROXY, ["--preload"], SETTINGS), (GTHREAD, [], None), (GTHREAD, ["--preload"], SETTINGS)]


@pytest.mark.parametrize(("front_end", "extra", "settings"), CASES,
                         ids=["proxy", "proxy-preload", "gthread-no-settings", "gthread-preload"])
def test_an_instance_whose_memory_is_removed_goes_on_with_it(
    rig: Rig, front_end: FrontEnd, extra: list[str], settings: Path | None
) -> None:
    """A cleaner of /dev/shm takes all files. Workers and controllers that start later still share the counts."""
    origin = rig.origin(1)
    server = f'{{ address = "{origin.addresses[0]}", max_connections = 2 }}'
    balancer = rig.balancer(pool_text([server]), front_end, workers=2, extra=extra, settings=settings)
    fetch(balancer.address)
    wait_until(lambda: instances_of(balancer).controller, "a controller runs")
    for path in DIRECTORY.glob(f"{instances_of(balancer).segment}*"):
        path.unlink()
    wait_until(lambda: REMOVED in balancer.log(), balancer.log)
    controller = instances_of(balancer).controller
    os.kill(controller, signal.SIGKILL)
    victim = balancer.workers()[0]
    balancer.kill_worker(victim)
    balancer.wait_for_workers(2, without=[victim])
    wait_until(lambda: instances_of(balancer).controller not in (0, controller), "another controller runs")
    counts_are_shared(balancer, origin)
    old = balancer.workers()
    balancer.reload()
    balancer.wait_for_workers(2, without=old)
    counts_are_shared(balancer, origin)
    assert balancer.log().count(REMOVED) == 1
    assert balancer.by_hand("drain", origin.addresses[0]).returncode == 0
    assert fetch(balancer.address).status == 503
    assert not list(DIRECTORY.glob(f"{instances_of(balancer).segment}*")), "nobody has made a second one"


def counts_are_shared(balancer: Balancer, origin: Origin) -> None:
    """Of 12 requests to a server of two connections, over both workers, two are let in."""
    with origin.released_at_end(), Burst(balancer.address, 12) as burst:
        origin.wait_for_in_flight(2)
        wait_until(lambda: burst.answered() >= 10, "the others are answered")
        origin.release()
        assert sorted(burst.statuses()) == [200] * 2 + [503] * 10
    balancer.wait_until_idle()
