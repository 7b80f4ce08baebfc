"""Workers that were replaced while they serve a tunnel or a long response: they go on, and gunicorn's master does not wait."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.support import processes
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Connection, Truncated, fetch, request_bytes
from tests.support.rig import Rig
from tests.support.waiting import wait_until

# gunicorn waited this long for old workers, at a reload and at its end: nobody may be seen to wait so long where it is 60.
LONG = ["--graceful-timeout", "60"]
SHORT_S = 2
SHORT = ["--graceful-timeout", str(SHORT_S)]
# Far below LONG, and far above what a loaded machine takes for a step.
SOON_S = 20.0


def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


@pytest.fixture(scope="module")
def websocket_server() -> Iterator[Server]:
    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)


def start(rig: Rig, server: Server, extra: list[str], linger_s: float = 600.0, workers: int = 2) -> Balancer:
    port = server.socket.getsockname()[1]
    return rig.balancer(f"[listen]\nlinger = {linger_s}\n" + pool_text([f"127.0.0.1:{port}"]), PROXY, workers=workers,
                        extra=["--pid", "gunicorn.pid", *extra])


def websocket(balancer: Balancer) -> ClientConnection:
    host, port = balancer.address
    return connect(f"ws://{host}:{port}/", ping_interval=None)


def works(client: ClientConnection) -> bool:
    client.send("are you there")
    return client.recv(timeout=20) == "are you there"


def works_until(client: ClientConnection, end: float) -> bool:
    """Whether it works, or was cut at the time `end` (monotonic) or later."""
    try:
        return works(client)
    except ConnectionClosed:
        return time.monotonic() >= end


def wait_until_cut(client: ClientConnection, seconds: float = SOON_S) -> None:
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=seconds)


def lingering(balancer: Balancer, master: int = 0) -> dict[int, int]:
    """Connections by pid of the workers that linger."""
    workers = balancer.status().instance["workers"]
    return {worker["pid"]: worker["lingering"] for worker in workers if worker["lingers_s"]}


def serving(balancer: Balancer) -> list[int]:
    gone = lingering(balancer)
    return [pid for pid in balancer.workers() if pid not in gone]


def reload_with_tunnel(balancer: Balancer) -> int:
    """HUP, with one connection in use; the pid of the worker that lingers with it."""
    before = lingering(balancer)
    balancer.reload()
    (pid,) = wait_until(lambda: lingering(balancer).keys() - before, "an old worker lingers", SOON_S)
    return pid


def wait_for_end(pids: list[int], seconds: float = SOON_S) -> None:
    wait_until(lambda: not any(map(processes.is_running, pids)), f"the end of {pids}", seconds)


def test_a_reload_leaves_a_tunnel_alone_and_the_master_at_work(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, LONG)
    with websocket(balancer) as client:
        old = reload_with_tunnel(balancer)
        assert works(client)
        wait_until(lambda: lingering(balancer) == {old: 1}, lambda: f"with one connection: {lingering(balancer)}")
        shown = balancer.command("status").stdout
        assert "lingering workers: 1, 1 connections" in shown and f"master {balancer.master}, 2 workers" in shown
        # A worker that dies now is replaced.
        victim = serving(balancer)[0]
        balancer.kill_worker(victim)
        balancer.wait_for_workers(3, without=[victim], seconds=SOON_S)
        # So is all at the next reload, and the one after.
        for _ in range(2):
            before = serving(balancer)
            balancer.reload()
            wait_until(lambda gone=before: not set(gone) & set(balancer.workers()), "the second generation ended", SOON_S)
        assert works(client) and lingering(balancer) == {old: 1}
    # It ends with its last connection.
    wait_until(lambda: old not in balancer.status().workers, "the lingering worker ended", SOON_S)
    assert len(balancer.wait_until_idle().workers) == 2
    assert "was sent" not in balancer.log().replace(f"Worker (pid:{victim}) was sent SIGKILL", "")


def test_a_worker_killed_right_after_hup_is_replaced_at_once(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, LONG)
    with websocket(balancer) as client:
        old = balancer.workers()
        os.kill(balancer.master, signal.SIGHUP)
        (victim, *_) = wait_until(lambda: [pid for pid in balancer.workers() if pid not in old], "a new worker", SOON_S)
        balancer.kill_worker(victim)
        wait_until(lambda: len([pid for pid in balancer.workers() if pid not in (*old, victim)]) == 2, "a substitute", SOON_S)
        assert works(client)


@pytest.mark.parametrize("kind", [PROXY, GTHREAD], ids=str)
def test_a_worker_that_is_told_to_end_again_and_again_ends_in_good_order(rig: Rig, kind: FrontEnd) -> None:
    """As the master tells it when it was replaced. gunicorn reports a worker that died of the signal as an error."""
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), kind, workers=1)
    (old,) = balancer.workers()
    until = time.monotonic() + SOON_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(old, signal.SIGTERM)
    wait_until(lambda: old not in balancer.workers(), "it has ended", SOON_S)
    assert f"Worker exiting (pid: {old})" in balancer.log() and "was sent" not in balancer.log()


@pytest.mark.parametrize("sig", [signal.SIGQUIT, signal.SIGINT], ids=["QUIT", "INT"])
def test_a_quick_end_right_after_a_reload_is_quick(rig: Rig, websocket_server: Server, sig: signal.Signals) -> None:
    balancer = start(rig, websocket_server, LONG)
    assert balancer.process is not None
    with websocket(balancer) as client:
        old = reload_with_tunnel(balancer)
        with websocket(balancer) as other:
            os.kill(balancer.master, sig)
            assert balancer.process.wait(SOON_S) == 0
            wait_for_end([old])
            wait_until_cut(client)
            wait_until_cut(other)


def test_a_stop_gives_lingering_workers_the_graceful_timeout(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, SHORT)
    assert balancer.process is not None
    with websocket(balancer) as client:
        old = reload_with_tunnel(balancer)
        with websocket(balancer) as second:
            began = time.monotonic()
            os.kill(balancer.master, signal.SIGTERM)
            assert all(works_until(each, began + SHORT_S) for each in (client, second)), "tunnels go on for graceful_timeout"
            wait_until_cut(client)
        assert time.monotonic() - began > SHORT_S / 2
        assert balancer.process.wait(SOON_S) == 0
        assert not processes.is_running(old), "the master has waited for it"
    assert "connections broken off at the end of graceful_timeout" in balancer.log()


def test_a_stop_is_over_when_the_lingering_worker_is_done(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, LONG)
    assert balancer.process is not None
    with websocket(balancer):
        reload_with_tunnel(balancer)
        os.kill(balancer.master, signal.SIGTERM)
    assert balancer.process.wait(SOON_S) == 0


def test_linger_is_the_longest_time(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, LONG, linger_s=2)
    with websocket(balancer) as client:
        old = balancer.workers()
        balancer.reload()
        wait_until_cut(client)
        wait_until(lambda: not set(old) & set(balancer.workers()), "the lingering worker ended", SOON_S)
    assert "1 connections broken off at the end of listen.linger" in balancer.log()


def test_without_linger_a_reload_breaks_off_at_graceful_timeout(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, SHORT, linger_s=0)
    with websocket(balancer) as client:
        balancer.reload()
        wait_until_cut(client)
    wait_until(lambda: "1 connections broken off at the end of graceful_timeout" in balancer.log(), balancer.log)


def test_max_requests_replaces_a_worker_that_has_a_tunnel(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, [*LONG, "--max-requests", "5"], workers=1)
    (old,) = balancer.workers()
    with websocket(balancer) as client:
        for _ in range(8):
            assert fetch(balancer.address).status == 426  # the server wants to upgrade
        wait_until(lambda: len(balancer.workers()) == 2, "a substitute", SOON_S)
        assert works(client)
        wait_until(lambda: list(lingering(balancer)) == [old], lambda: f"{old} lingers: {lingering(balancer)}")


def test_a_long_response_outlives_reloads_and_graceful_timeout(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1, extra=SHORT)
    with Connection(balancer.address) as client, origin.released_at_end():
        client.send(request_bytes("/hold?n=5000"))
        origin.wait_for_in_flight(1)
        for _ in range(2):
            balancer.reload()
        time_out = time.monotonic() + SHORT_S + 1
        wait_until(lambda: time.monotonic() > time_out, "graceful_timeout is over")
        assert fetch(balancer.address, "/bytes?n=3").status == 200
        origin.release()
        response = client.response()
        assert len(response.body) == 5000 and response.value("Connection") == "close"
    balancer.wait_until_idle()


def test_gunicorns_own_workers_hold_no_reload_either(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), GTHREAD, workers=1, extra=LONG)
    with Connection(balancer.address) as client, origin.released_at_end():
        client.send(request_bytes("/hold?n=5000"))
        origin.wait_for_in_flight(1)
        old = balancer.workers()
        balancer.reload()
        (new,) = (pid for pid in balancer.workers() if pid not in old)
        balancer.kill_worker(new)
        wait_until(lambda: [pid for pid in balancer.workers() if pid not in (*old, new)], "a substitute", SOON_S)
        origin.release()
        assert len(client.response().body) == 5000
    wait_until(lambda: not set(old) & set(balancer.workers()), "the old worker ended", SOON_S)


def upgrade(balancer: Balancer) -> int:
    """USR2; the pid of the new master, whose workers have joined."""
    new_pid_file = balancer.folder / "gunicorn.pid.2"
    os.kill(balancer.master, signal.SIGUSR2)
    wait_until(lambda: new_pid_file.exists() and new_pid_file.read_text().strip(), "a new master", SOON_S)
    new = int(new_pid_file.read_text())
    wait_until(lambda: len(processes.children(new)) >= 2 and
               all(processes.catches(pid, signal.SIGABRT) for pid in processes.children(new)), "its workers", SOON_S)
    return new


def test_a_tunnel_survives_an_upgrade_and_the_new_master_ends_it(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, SHORT)
    process = balancer.process
    assert process is not None
    old = balancer.workers()
    with websocket(balancer) as client:
        new = upgrade(balancer)
        try:
            os.kill(balancer.master, signal.SIGTERM)
            assert process.wait(SOON_S) == 0
            wait_until(lambda: sum(map(processes.is_running, old)) == 1, f"one of {old} is left, with the tunnel")
            orphan = next(filter(processes.is_running, old))
            wait_until(lambda: processes.parent(orphan) != process.pid, "the new master has promoted itself")
            until = time.monotonic() + SHORT_S + 1
            wait_until(lambda: time.monotonic() > until, "graceful_timeout is over")
            assert works(client)
            wait_until(Path(balancer.folder / "gunicorn.pid").exists, "the new master has the old one's place", SOON_S)
            end = time.monotonic() + SHORT_S
            os.kill(new, signal.SIGTERM)
            assert works_until(client, end), "it goes on for graceful_timeout"
            wait_until_cut(client)
            wait_for_end([new, orphan])
        finally:
            for pid in (new, *processes.children(new)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_lingering_workers_end_when_their_master_is_killed(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, SHORT)
    with websocket(balancer) as client:
        old = reload_with_tunnel(balancer)
        every = balancer.workers()
        os.kill(balancer.master, signal.SIGKILL)
        wait_until_cut(client)
        wait_for_end([old, *every])


def test_a_frozen_lingering_worker_is_killed(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, [*LONG, "--timeout", "3"])
    with websocket(balancer) as client:
        old = reload_with_tunnel(balancer)
        os.kill(old, signal.SIGSTOP)
        wait_until_cut(client)
        wait_for_end([old])
    assert len(balancer.wait_until_idle().workers) == 2


def test_the_oldest_of_too_many_lingering_workers_end(rig: Rig, websocket_server: Server) -> None:
    balancer = start(rig, websocket_server, SHORT, workers=1)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(5):
            clients.append(stack.enter_context(websocket(balancer)))
            balancer.reload()
        wait_until_cut(clients[0])
        assert all(works(client) for client in clients[1:])
    assert "more than 4 workers linger" in balancer.log()


def test_lingering_workers_open_moved_logs_anew(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1, extra=[*LONG, "--access-logfile", "access.log"])
    log = balancer.folder / "access.log"
    with Connection(balancer.address) as client, origin.released_at_end():
        client.send(request_bytes("/hold?n=7"))
        origin.wait_for_in_flight(1)
        reload_with_tunnel(balancer)
        log.rename(balancer.folder / "access.log.1")
        os.kill(balancer.master, signal.SIGUSR1)
        wait_until(log.exists, "a new log", SOON_S)
        wait_until(lambda: not any(name.endswith("access.log.1") for pid in balancer.workers()
                                   for name in processes.open_files(pid)), "every worker writes to it", SOON_S)
        origin.release()
        assert client.response().status == 200
    wait_until(lambda: "/hold?n=7" in log.read_text(), "the line of the lingering worker's request", SOON_S)
    with pytest.raises((Truncated, OSError)):
        client.response()


def test_a_reload_that_lacks_the_room_of_a_lingering_workers_servers_says_so_and_works_later(
    rig: Rig, websocket_server: Server
) -> None:
    balancer = start(rig, websocket_server, [], workers=1)
    first = balancer.config_file.read_text()

    def servers(count: int, net: str) -> list[str]:
        return [f"127.{net}.{number // 250}.{number % 250 + 1}:1" for number in range(count)]

    def reload(names: list[str]) -> None:
        balancer.config_file.write_text(first.partition("[pools")[0] + pool_text(names))
        balancer.reload()

    with websocket(balancer) as client:
        assert works(client)
        reload(servers(255, "1"))
        wait_until(lambda: len(balancer.status().instance["servers"]) == 256, lambda: f"all are there\n{balancer.log()}")
        # Before, it is one of the workers that are about to end, whose servers are still in use.
        wait_until(lambda: lingering(balancer), "the old worker lingers", SOON_S)
        reload(servers(255, "1") + servers(1, "2"))
        wait_until(lambda: "room for 256 servers only; 1 of them are kept for replaced workers that linger" in balancer.log(),
                   balancer.log)
        assert works(client)
    wait_until(lambda: len(balancer.status().instance["servers"]) == 255, lambda: f"its server is gone\n{balancer.log()}")
    reload(servers(255, "1") + servers(1, "2"))
    wait_until(lambda: len(balancer.status().instance["servers"]) == 256, lambda: f"the reload works\n{balancer.log()}")
