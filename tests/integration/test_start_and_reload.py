"""Every way to start it, to reload it and to end it, by accident too."""
from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.balancer import SETTINGS, Balancer, FrontEnd, StartFailed, pool_text, segments, stopped
from tests.support.client import Burst, Truncated, fetch
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS = 4


def burst_is_within_one(balancer: Balancer, origin: Origin, count: int) -> None:
    with origin.released_at_end(), Burst(balancer.address, count) as burst:
        origin.wait_for_in_flight(count)
        assert origin.spread <= 1, origin
        origin.release()
        assert burst.statuses() == [200] * count
    balancer.wait_until_idle()


@pytest.mark.parametrize("settings", [SETTINGS, None], ids=["our-settings", "no-settings"])
@pytest.mark.parametrize("extra", [["--preload"], []], ids=["preload", "no-preload"])
def test_exact_with_preload_and_without_with_our_settings_and_without(
    rig: Rig, front_end: FrontEnd, settings: Path | None, extra: list[str]
) -> None:
    workers, held = min(front_end.workers, 6), front_end.held
    if held < 64:
        held = workers  # sync: one request a worker
    origin = rig.origin(SERVERS)
    config = pool_text(origin.addresses)
    balancer = rig.balancer(config, front_end, workers=workers, settings=settings, extra=extra)
    burst_is_within_one(balancer, origin, held)
    # A new worker joins the same totals, too.
    victim = balancer.workers()[0]
    balancer.kill_worker(victim)
    balancer.wait_for_workers(workers, without=[victim])
    burst_is_within_one(balancer, origin, held)
    assert len([path for path in segments(balancer.master) if not path.suffix]) == 1


def test_hup_under_load_fails_no_request(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), front_end)
    with Load(balancer.address, 6, "/sleep?seconds=0.01") as load:
        for _ in range(2):
            load.wait_for_successes(50)
            old = balancer.workers()
            balancer.reload()
            balancer.wait_for_workers(4, without=old)
        load.wait_for_successes(50)
    assert load.failures == []
    balancer.wait_until_idle()


def test_hup_takes_over_a_changed_configuration(rig: Rig, front_end: FrontEnd) -> None:
    """A server that stays keeps its count, one that is gone gets nothing more, a new one is used."""
    origin = rig.origin(3)
    first, second, third = origin.addresses
    balancer = rig.balancer(pool_text([first, second]), front_end)
    with origin.released_at_end(), Burst(balancer.address, 4) as burst:
        origin.wait_for_in_flight(4)
        assert origin.in_flight == [2, 2, 0]
        old = balancer.workers()
        balancer.config_file.write_text(pool_text([second, third]))
        balancer.reload()
        # The old workers still hold their requests; new ones go by the new table, and the held ones still count.
        wait_until(
            lambda: "origin-0" not in {fetch(balancer.address).served_by for _ in range(40)}, "only new workers accept"
        )
        wait_until(lambda: sum(balancer.status().in_flight.values()) == 4, "nothing but what is held is in flight")
        with Burst(balancer.address, 2) as more:
            origin.wait_for_in_flight(6)
            assert origin.in_flight == [2, 2, 2]
            origin.release()
            assert more.statuses() == [200] * 2
        assert burst.statuses() == [200] * 4
    balancer.wait_for_workers(4, without=old)
    start = len(origin.arrivals)
    for _ in range(10):
        assert fetch(balancer.address).status == 200
    assert origin.shares(start) == [0, 5, 5]
    balancer.wait_until_idle()


@pytest.mark.parametrize("extra", [["--preload"], []], ids=["preload", "no-preload"])
def test_hup_with_a_broken_configuration_leaves_the_old_one_running(
    rig: Rig, front_end: FrontEnd, extra: list[str]
) -> None:
    """With our settings file only: gunicorn by itself ends when the app cannot be loaded in new workers."""
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=2, extra=extra)
    old = balancer.workers()
    balancer.config_file.write_text(pool_text(origin.addresses, "least-conections"))
    balancer.reload()
    balancer.wait_for_workers(2, without=old)
    assert re.search(r"prefork_lb\.toml:\d+: pools\.web\.policy", balancer.log()), "the log says what is wrong"
    assert [fetch(balancer.address).status for _ in range(10)] == [200] * 10
    assert processes.is_running(balancer.master)
    # Mended: the next HUP takes it over.
    balancer.config_file.write_text(pool_text(origin.addresses[:1]))
    old = balancer.workers()
    balancer.reload()
    balancer.wait_for_workers(2, without=old)
    start = len(origin.arrivals)
    assert [fetch(balancer.address).status for _ in range(4)] == [200] * 4
    assert origin.shares(start) == [4, 0]


def test_a_master_that_was_killed_leaves_nothing_after_the_next_start(rig: Rig) -> None:
    origin = rig.origin(SERVERS)
    config = pool_text(origin.addresses)
    killed = rig.balancer(config)
    process = killed.process
    assert process is not None
    dead = killed.master
    with origin.released_at_end(), Burst(killed.address, 16):
        origin.wait_for_in_flight(16)
        orphans = killed.workers()
        process.kill()
        process.wait()
        assert segments(dead), "the killed master's segment is what the next start has to clear away"
        balancer = rig.balancer(config)
        assert sum(balancer.status().in_flight.values()) == 0  # the other instance's claims are not taken over
    wait_until(lambda: not any(map(processes.is_running, orphans)), "the orphans are gone", 35)
    burst_is_within_one(balancer, origin, 64)
    assert segments(dead) == []
    balancer.stop(signal.SIGTERM)
    again = rig.balancer(config)
    assert segments(dead) == []
    burst_is_within_one(again, origin, 64)


def test_workers_that_outlive_their_master_take_nobody_elses_place(rig: Rig) -> None:
    """A worker asked for the first time after its master's death: its parent is init then, or another reaper."""
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses))
    address, orphans, process = balancer.address, balancer.workers(), balancer.process
    assert process is not None
    process.kill()
    process.wait()
    reapers = {processes.parent(pid) for pid in orphans if processes.is_running(pid)} - {process.pid, 0}
    with contextlib.suppress(OSError, Truncated):  # they end within a second
        for _ in range(40):
            fetch(address)
    wait_until(lambda: not any(map(processes.is_running, orphans)), "the orphans are gone", 35)
    assert [path for reaper in reapers for path in segments(reaper)] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_ordinary_end_is_quick_and_silent_and_the_next_start_tidies_up(
    rig: Rig, front_end: FrontEnd, how: signal.Signals
) -> None:
    origin = rig.origin(1)
    config = pool_text(origin.addresses)
    balancer = rig.balancer(config, front_end, workers=2)
    assert fetch(balancer.address).status == 200
    # A worker that is still starting loses gunicorn's signal: all must have joined the instance.
    wait_until(lambda: len(balancer.status().workers) == 2, "both workers have joined")
    # gunicorn's sync worker logs a traceback when a signal ends it between a request's last byte and its wait for the next one.
    wait_until(lambda: all(processes.state(pid, pid) == "S" for pid in balancer.workers()), "the workers wait")
    process = balancer.process
    assert process is not None
    process.send_signal(how)
    assert process.wait(20) == 0
    assert "resource_tracker" not in balancer.log() and "Traceback" not in balancer.log()
    following = rig.balancer(config, front_end, workers=1)
    assert fetch(following.address).status == 200
    assert segments(process.pid) == []


def test_two_instances_at_once_count_apart(rig: Rig) -> None:
    origin = rig.origin(SERVERS)
    config = pool_text(origin.addresses)
    one, two = rig.balancer(config), rig.balancer(config)
    with origin.released_at_end(), Burst(one.address, 32) as first:
        origin.wait_for_in_flight(32)
        assert sum(two.status().in_flight.values()) == 0
        with Burst(two.address, 6) as second:
            origin.wait_for_in_flight(38)
            # Counted together, 38 over 4 servers would be within 1; apart, so is each by itself.
            assert sorted(two.status().in_flight.values()) == [1, 1, 2, 2]
            assert sorted(one.status().in_flight.values()) == [8, 8, 8, 8]
            one.stop(signal.SIGKILL)
            origin.wait_for_in_flight(6)
            assert sorted(two.status().in_flight.values()) == [1, 1, 2, 2]
            assert [fetch(two.address).status for _ in range(4)] == [200] * 4
            origin.release()
            assert second.statuses() == [200] * 6
        _, failed = first.responses()
        assert len(failed) == 32
    two.wait_until_idle()


def test_more_and_fewer_workers_by_signal_stay_exact(rig: Rig) -> None:
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), workers=2)
    with origin.released_at_end(), Burst(balancer.address, 16) as burst:
        origin.wait_for_in_flight(16)
        for workers in (3, 4):  # one at a time: a signal that comes while the same one is pending is lost
            os.kill(balancer.master, signal.SIGTTIN)
            balancer.wait_for_workers(workers)
        with Burst(balancer.address, 16) as more:
            origin.wait_for_in_flight(32)
            assert origin.in_flight == [8] * SERVERS
            origin.release()
            assert more.statuses() == [200] * 16
        assert burst.statuses() == [200] * 16
    for workers in (3, 2, 1):
        os.kill(balancer.master, signal.SIGTTOU)
        balancer.wait_for_workers(workers)
    burst_is_within_one(balancer, origin, 64)


BROKEN = """\
[listen]
workers = "many"

[pools.web]
policy = "least-conections"
servers = ["127.0.0.1:8001", { address = "127.0.0.1:99999" }]
"""


@pytest.mark.parametrize("settings", [SETTINGS, None], ids=["our-settings", "no-settings"])
@pytest.mark.parametrize("extra", [["--preload"], []], ids=["preload", "no-preload"])
def test_a_configuration_with_faults_stops_the_start_and_names_them_all(
    rig: Rig, settings: Path | None, extra: list[str]
) -> None:
    balancer = rig.new_balancer(BROKEN, workers=2, settings=settings, extra=extra)
    with pytest.raises(StartFailed) as caught:
        balancer.start()
    assert caught.value.code != 0
    log = caught.value.log
    for line, key in ((2, "listen.workers"), (5, "pools.web.policy"), (6, r"pools.web.servers\[1\]")):
        assert re.search(rf"prefork_lb\.toml:{line}: {key}", log), log
    assert "least-connections" in log  # did you mean
    if settings:
        # Without ours gunicorn finds out when it loads the app, and may show a traceback of its own.
        assert "Traceback" not in log
    assert segments(balancer.last_master) == []


def test_no_configuration_at_all_says_where_it_was_looked_for(rig: Rig) -> None:
    balancer = rig.new_balancer(None, workers=2)
    with pytest.raises(StartFailed) as caught:
        balancer.start()
    assert caught.value.code != 0
    for place in ("PREFORK_LB_CONFIG", "prefork_lb.toml", "/etc/prefork-lb/prefork_lb.toml", "PREFORK_LB_SERVERS"):
        assert place in caught.value.log


def test_servers_from_the_environment_need_no_file(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(2)
    first, second = origin.addresses
    environ = {"PREFORK_LB_SERVERS": f"{first},{second} weight=2"}
    balancer = rig.balancer(None, front_end, environ=environ)
    for _ in range(30):
        assert fetch(balancer.address).status == 200
    assert origin.shares() == [10, 20]


def test_the_toml_gives_workers_and_bind_and_the_command_line_wins(rig: Rig) -> None:
    origin = rig.origin(1)
    port, other = free_port(), free_port()
    config = f'[listen]\nbind = ["{HOST}:{port}"]\nworkers = 3\n' + pool_text(origin.addresses)
    from_file = rig.balancer(config, workers=None, bind=None)
    from_file.wait_for_workers(3)
    assert from_file.address == (HOST, port)
    assert fetch(from_file.address).status == 200
    from_file.stop()
    given = rig.balancer(config, workers=2, bind=f"{HOST}:{other}")
    given.wait_for_workers(2)
    assert given.address == (HOST, other)
    assert fetch(given.address).status == 200


def test_the_file_in_the_working_directory_is_found_without_being_named(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.new_balancer(None, workers=2)
    balancer.config_file.write_text(pool_text(origin.addresses))
    balancer.start()
    assert fetch(balancer.address).status == 200


def test_a_new_master_by_usr2_and_the_old_one_count_together(rig: Rig) -> None:
    """gunicorn's upgrade: USR2 starts a new master beside the old one; both take requests."""
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), extra=["--pid", "gunicorn.pid"])
    old_master, old = balancer.master, balancer.workers()
    with origin.released_at_end(), Burst(balancer.address, 16) as burst:
        origin.wait_for_in_flight(16)
        os.kill(old_master, signal.SIGUSR2)
        new_master = wait_until(
            lambda: next((pid for pid in processes.children(old_master) if is_master(pid, old)), 0),
            lambda: f"a new master with 4 workers\n{balancer.log()}", 20,
        )
        new = processes.children(new_master)
        try:
            with stopped(old), Burst(balancer.address, 16) as more:
                origin.wait_for_in_flight(32)
                assert origin.in_flight == [8] * SERVERS
                origin.release()
                assert more.statuses() == [200] * 16
            assert burst.statuses() == [200] * 16
            # The upgrade's end: the old master goes, the new one goes on with the same shared memory.
            os.kill(old_master, signal.SIGTERM)
            wait_until(lambda: not processes.is_running(old_master), "the old master is gone", 20)
            with Burst(balancer.address, 64) as alone:
                origin.wait_for_in_flight(64)
                assert origin.in_flight == [16] * SERVERS
                origin.release()
                assert alone.statuses() == [200] * 64
        finally:
            os.kill(new_master, signal.SIGTERM)
            wait_until(lambda: not any(map(processes.is_running, [new_master, *new])), "the new master is gone", 20)


def is_master(pid: int, workers: list[int]) -> bool:
    """Whether `pid`, a child of the old master, is none of its workers and has four of its own that are ready."""
    own = processes.children(pid)
    return pid not in workers and len(own) == 4 and all(processes.catches(child, signal.SIGABRT) for child in own)


def test_the_status_command_tells_what_is_in_memory(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), workers=2)
    assert [fetch(balancer.address).status for _ in range(3)] == [200] * 3
    wait_until(lambda: balancer.status().instance["controller"], "the controller has begun")
    told = balancer.wait_until_idle()
    done = balancer.command("status", "--json")
    assert done.returncode == 0, done.stderr
    mine = [found for found in json.loads(done.stdout)["instances"] if found["master"] == balancer.master]
    assert mine[0]["controller"]["silent_s"] < 5  # it moves
    assert [worker["pid"] for worker in mine[0]["workers"]] == [worker["pid"] for worker in told.instance["workers"]]
    servers = [server for pool in mine[0]["pools"] for server in pool["servers"]]
    assert sum(server["requests"] for server in servers) == 3 and len(servers) == 2
