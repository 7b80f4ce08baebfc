"""ProxyWorkers come and go under a mixed load: reload, upgrade, stop, kills, restarts; hooks, logs and limits of gunicorn."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.certificates import make_pair, needs_openssl
from tests.support.client import Address, Connection, Truncated, fetch, refuses, request_bytes
from tests.support.kept_load import KEPT_S, MIXED, SMALL, KeptLoad
from tests.support.pattern import fits_pattern, pattern
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.tls import SecureConnection, believing
from tests.support.waiting import wait_until

MIB = 1 << 20


def replaced(balancer: Balancer, old: list[int]) -> None:
    """Wait until none of the old workers is there any more."""
    wait_until(lambda: not set(old) & set(balancer.workers()), lambda: f"{old} ended, now {balancer.workers()}", 20)


# -- reload and upgrade --------------------------------------------------------------------------------------------


def test_reloads_fail_no_request_of_any_kind(rig: Rig) -> None:
    """Bodies of all framings both ways, and clients that think between two requests for longer than a worker's last moments."""
    balancer = rig.balancer(pool_text(rig.origin(4).addresses), PROXY, workers=2)
    with KeptLoad(balancer.address, 6, MIXED) as load, KeptLoad(balancer.address, 4, MIXED, pause_s=0.7) as thinking:
        for _ in range(5):
            old = balancer.workers()
            load.wait_for(60)
            balancer.reload()
            replaced(balancer, old)
        thinking.wait_for(12)
    assert load.failures == [] and thinking.failures == []
    balancer.wait_until_idle()


@needs_openssl
def test_reloads_fail_no_request_over_tls(rig: Rig, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "front", "localhost")
    extra = ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2, extra=extra, secure=True)
    context = believing(pair)

    def connect(address: Address) -> Connection:
        return SecureConnection(address, context)

    with KeptLoad(balancer.address, 4, MIXED, connect=connect) as load:
        for _ in range(3):
            old = balancer.workers()
            load.wait_for(40)
            balancer.reload()
            replaced(balancer, old)
        load.wait_for(40)
    assert load.failures == []
    balancer.wait_until_idle()


def test_bodies_on_their_way_at_a_reload_come_to_their_end(rig: Rig) -> None:
    """A download that the client reads slowly, and an upload that it sends slowly: the old worker stays for both."""
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=1)
    old, length = balancer.workers(), 40 * MIB
    with Connection(balancer.address, receive_buffer=64 * 1024) as download, Connection(balancer.address) as upload:
        download.send(request_bytes(f"/bytes?n={length}"))
        head = download.head()
        upload.send(request_bytes("/upload", "POST", fields=[("Content-Length", "300000")]) + bytes(pattern(0, 100_000)))
        balancer.reload()
        assert old[0] in balancer.workers()
        assert fetch(balancer.address).status == 200
        done = 0
        while done < length and (piece := download.receive(min(length - done, MIB))):
            assert fits_pattern(done, piece)
            done += len(piece)
        upload.send(bytes(pattern(100_000, 200_000)))
        response = upload.response("POST")
        assert done == length and b"200" in head
        assert response.json() == {"received": 300_000, "fits": True, "trailers": {}}
        assert (response.value("Connection") or "").lower() == "close"
        assert upload.ended()
    replaced(balancer, old)
    assert "broken off" not in balancer.log()
    balancer.wait_until_idle()


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_head_that_was_begun_before_the_stop_is_answered(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1)
    process = balancer.process
    assert process is not None
    with Connection(balancer.address) as fresh, Connection(balancer.address) as kept:
        assert kept.request("/").status == 200
        for connection in (fresh, kept):
            connection.send(b"GET /bytes?n=77 HTTP/1.1\r\nHost: a.exa")
        assert fetch(balancer.address).status == 200  # what came before has been read then
        os.kill(balancer.master, signal.SIGTERM)
        wait_until(lambda: refuses(balancer.address), "new connections are refused")
        for connection in (fresh, kept):
            connection.send(b"mple\r\n\r\n")
            response = connection.response()
            assert (response.status, len(response.body)) == (200, 77)
            assert (response.value("Connection") or "").lower() == "close"
            assert connection.ended()
        assert process.wait(20) == 0


def test_a_request_right_behind_the_stop_is_answered_or_its_connection_ended_before_it(rig: Rig) -> None:
    """Connections used within the last second, 50 of them: their next requests cross the stop on the way."""
    origin, answered = rig.origin(1), 0
    for _ in range(3):
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(Connection(balancer.address)) for _ in range(50)]
            used, sent = [], []
            for connection in many:
                used.append(time.monotonic())
                assert connection.request("/").status == 200
            os.kill(balancer.master, signal.SIGTERM)
            for connection in many:
                with contextlib.suppress(ConnectionError):
                    connection.send(request_bytes("/bytes?n=5"))
                sent.append(time.monotonic())
            for connection, before, at in zip(many, used, sent, strict=True):
                try:
                    assert len(connection.response().body) == 5
                    answered += 1
                except (ConnectionError, Truncated):
                    assert at - before >= KEPT_S, "it was used within the last second"
    assert answered


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_a_quick_stop_waits_for_nobody(rig: Rig, how: signal.Signals) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=2, extra=["--graceful-timeout", "60"])
    process = balancer.process
    assert process is not None
    with origin.released_at_end(), Connection(balancer.address) as connection:
        connection.send(request_bytes("/hold"))
        origin.wait_for_in_flight(1)
        os.kill(balancer.master, how)
        assert process.wait(20) == 0  # a stop that waits would take all of graceful_timeout
        with pytest.raises((Truncated, ConnectionError)):
            connection.response()
        origin.wait_for_in_flight(0)
    assert "Traceback" not in balancer.log()


def test_one_worker_that_is_told_to_end_is_replaced_without_a_failed_request(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2)
    with KeptLoad(balancer.address, 6, MIXED) as load:
        for _ in range(4):
            load.wait_for(50)
            victim = balancer.workers()[0]
            os.kill(victim, signal.SIGTERM)
            balancer.wait_for_workers(2, without=[victim])
        load.wait_for(50)
    assert load.failures == []
    balancer.wait_until_idle()


# -- kills, restarts, the heartbeat --------------------------------------------------------------------------------


def test_a_killed_worker_under_a_mixed_load_takes_only_its_own_requests(rig: Rig) -> None:
    origin = rig.origin(4)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=2)
    clients = 8
    for _ in range(3):
        with KeptLoad(balancer.address, clients, MIXED) as load:
            load.wait_for(60)
            victim = balancer.workers()[0]
            balancer.kill_worker(victim)
            balancer.wait_for_workers(2, without=[victim])
            load.wait_for(60)
        assert len(load.failures) <= clients, load.failures
        balancer.wait_until_idle()
    origin.wait_for_in_flight(0)


def wait_for_beats(balancer: Balancer, count: int) -> None:
    """Wait until each worker has given so many signs of life."""
    for _ in range(count):
        before = {pid: processes.last_beat(pid) for pid in balancer.workers()}
        wait_until(lambda: all(processes.last_beat(pid) > beat for pid, beat in before.items()),  # noqa: B023
                   lambda: f"beats after {before}")  # noqa: B023


def test_workers_at_their_limit_keep_their_heartbeat(rig: Rig) -> None:
    """As many requests as the machine can do: nobody may be taken for frozen."""
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2)
    with KeptLoad(balancer.address, 16, SMALL) as load, Connection(balancer.address) as idle:
        assert idle.request("/").status == 200
        for _ in range(3):
            load.wait_for(100)
            wait_for_beats(balancer, 1)
        load.wait_for(100)
        assert idle.request("/").status == 200
    assert load.failures == []


def test_idle_workers_keep_their_heartbeat(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=2)
    wait_for_beats(balancer, 3)


def test_a_frozen_worker_with_clients_gives_its_claims_back(rig: Rig) -> None:
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=2, extra=["--timeout", "4"])
    with contextlib.ExitStack() as stack, origin.released_at_end():
        many = [stack.enter_context(Connection(balancer.address)) for _ in range(10)]
        for connection in many:
            connection.send(request_bytes("/hold"))
        origin.wait_for_in_flight(10)
        frozen, other = balancer.workers()
        held = balancer.status().workers[other]
        os.kill(frozen, signal.SIGSTOP)
        balancer.wait_for_workers(2, without=[frozen])
        wait_until(lambda: sum(balancer.status().in_flight.values()) == held, "its claims are given back")
        origin.release()
    balancer.wait_until_idle()


# -- gunicorn's settings -------------------------------------------------------------------------------------------


HOOKS = """
from prefork_lb.gunicorn.settings import settings
globals().update(settings())
_ours = post_worker_init

def _note(what):
    with open("hooks", "a") as file:
        print(what, file=file)

def post_fork(server, worker): _note("post_fork")
def post_worker_init(worker):
    _ours(worker)
    _note("post_worker_init")
def worker_int(worker): _note("worker_int")
def worker_abort(worker): _note("worker_abort")
def worker_exit(server, worker): _note("worker_exit")
def child_exit(server, worker): _note("child_exit")
"""


@pytest.mark.parametrize("how", ["TERM", "INT", "HUP"])
def test_the_hooks_of_a_workers_life_are_called(rig: Rig, tmp_path: Path, how: str) -> None:
    conf = tmp_path / "hooks.conf.py"
    conf.write_text(HOOKS)
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, settings=conf)
    hooks, old, process = balancer.folder / "hooks", balancer.workers(), balancer.process
    assert process is not None
    assert hooks.read_text().split() == ["post_fork", "post_worker_init"]
    os.kill(balancer.master, getattr(signal, f"SIG{how}"))
    if how == "HUP":
        replaced(balancer, old)
        expected = ["child_exit", "post_fork", "post_worker_init", "worker_exit"]
        wait_until(lambda: sorted(hooks.read_text().split()[2:]) == expected, hooks.read_text)
    else:
        assert process.wait(20) == 0
        expected = ["worker_exit"] if how == "TERM" else ["worker_int", "worker_exit"]
        assert [name for name in hooks.read_text().split()[2:] if name != "child_exit"] == expected


def test_the_access_log_is_reopened_by_usr1(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, extra=["--access-logfile", "access.log"])
    log, moved = balancer.folder / "access.log", balancer.folder / "access.log.1"
    with Connection(balancer.address) as connection:
        assert connection.request("/bytes?n=1&first").status == 200
        wait_until(lambda: "first" in log.read_text(), log.read_text)
        log.rename(moved)
        os.kill(balancer.master, signal.SIGUSR1)
        wait_until(log.exists, "a new file")

        def written_anew() -> bool:
            assert connection.request("/bytes?n=1&second").status == 200
            return "second" in log.read_text()

        wait_until(written_anew, "it is written to", every=0.05)


KEYS = ["h", "l", "u", "r", "s", "b", "f", "a", "{host}i", "{content-type}o", "T", "M", "D", "L"]


def test_the_access_log_tells_of_every_kind_of_end(rig: Rig) -> None:
    form = "|".join(f"%({key})s" for key in KEYS)
    extra = ["--access-logfile", "access.log", "--access-logformat", form]
    origin = rig.origin(1)
    text = "[proxy.timeouts]\nhead = 0.5\nidle = 0.5\n" + pool_text(origin.addresses)
    text += '[[routes]]\npool = "web"\n[[routes]]\npaths = ["/hold"]\npool = "web"\ntimeouts = { response = 0.5 }\n'
    text += '[[routes]]\npaths = ["/leave/"]\npool = "web"\npath = "/{rest}"\n'
    balancer = rig.balancer(text, PROXY, workers=1, extra=extra)
    log = balancer.folder / "access.log"
    start = len(wait_until(lambda: log.read_text().splitlines(), "the line of the start's own request"))
    fields = [("Host", "log.example"), ("Referer", "http://r.example/"), ("User-Agent", 'a "quoted" agent'),
              ("Authorization", "Basic dXNlcjpzZWNyZXQ=")]
    echoed = fetch(balancer.address, "/echo?x=1", fields=fields)
    assert echoed.status == 200
    assert fetch(balancer.address, "/hold?late").status == 504
    with pytest.raises(Truncated):
        fetch(balancer.address, "/stall-body?n=1000&sent=10")
    with Connection(balancer.address) as slow_head:
        slow_head.send(b"GET /late HT")
        assert slow_head.response().status == 408
    with Connection(balancer.address) as slow_body:
        slow_body.send(request_bytes("/upload", "POST", fields=[("Content-Length", "10")]) + b"abc")
        assert slow_body.response("POST").status == 408
    with origin.released_at_end():
        origin.wait_for_in_flight(0)
        with Connection(balancer.address) as leaver:
            leaver.send(request_bytes("/leave/hold"))
            origin.wait_for_in_flight(1)
        lines = wait_until(lambda: len(now := log.read_text().splitlines()[start:]) >= 6 and now, log.read_text)
    assert lines
    found = [line.split("|") for line in lines]
    assert found[0][:10] == ["127.0.0.1", "-", "user", "GET /echo?x=1 HTTP/1.1", "200", str(len(echoed.body)), "http://r.example/",
                             'a \\"quoted\\" agent', "log.example", "application/json"]
    assert (found[0][10], int(found[0][12]) // 1000) == ("0", int(found[0][11]))
    assert [(row[3], row[4]) for row in found[1:]] == [
        ("GET /hold?late HTTP/1.1", "504"), ("GET /stall-body?n=1000&sent=10 HTTP/1.1", "200"), ("- - -", "408"),
        ("POST /upload HTTP/1.1", "408"), ("GET /leave/hold HTTP/1.1", "499"),
    ]
    assert int(found[1][11]) >= 450 and 0 < int(found[2][5]) < 1000


def test_more_clients_than_worker_connections_all_get_their_turn(rig: Rig) -> None:
    """Each of 60 clients holds its connection for a while, and 6 may be there at a time in each of two workers."""
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=2, extra=["--worker-connections", "6"])
    statuses: list[int] = []

    def client() -> None:
        with Connection(balancer.address) as connection:
            for _ in range(3):
                statuses.append(connection.request("/sleep?seconds=0.01").status)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 180
    balancer.wait_until_idle()


def test_a_reload_can_move_the_listener(rig: Rig) -> None:
    """A HUP that names another port: the old one is let go, the new one served, what runs on the old one finished."""
    origin, first, second = rig.origin(1), free_port(), free_port()
    config = f'[listen]\nbind = ["{HOST}:{first}"]\n' + pool_text(origin.addresses)
    balancer = rig.balancer(config, PROXY, workers=1, bind=None)
    with origin.released_at_end(), Connection(balancer.address) as held:
        held.send(request_bytes("/hold?n=12"))
        origin.wait_for_in_flight(1)
        balancer.config_file.write_text(config.replace(str(first), str(second)))
        balancer.reload()
        wait_until(lambda: refuses((HOST, first)), "the old port is let go")
        assert fetch((HOST, second)).status == 200
        origin.release()
        assert len(held.response().body) == 12
    balancer.wait_until_idle()
