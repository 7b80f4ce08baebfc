"""The life of a ProxyWorker under gunicorn: start, graceful end, reload, upgrade, kills, limits, logs, other applications."""
from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.balancer import GUNICORN, PROXY, REPOSITORY, pool_text
from tests.support.client import Connection, Truncated, fetch, refuses, request_bytes, timed
from tests.support.kept_load import KeptLoad
from tests.support.load import Load
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until

GRACEFUL = ["--graceful-timeout", "60"]  # longer than any waiting here


def test_workers_that_end_after_max_requests_fail_no_request(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2, extra=["--max-requests", "300"])
    first = set(balancer.workers())
    with KeptLoad(balancer.address, 4) as load:
        wait_until(lambda: not first & set(balancer.workers()) or load.failures, "both workers were replaced", 30)
        load.wait_for(100)
    assert load.failures == [] and "Autorestarting worker after" in balancer.log()
    balancer.wait_until_idle()


def test_at_sigterm_exchanges_finish_idle_connections_end_and_nobody_new_comes(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1, extra=GRACEFUL)
    process = balancer.process
    assert process is not None
    with Connection(balancer.address) as idle, Connection(balancer.address) as busy, origin.released_at_end():
        assert idle.request("/").status == 200
        busy.send(request_bytes("/hold?n=5000"))
        origin.wait_for_in_flight(1)
        os.kill(balancer.master, signal.SIGTERM)
        assert idle.ended()
        wait_until(lambda: refuses(balancer.address), "nobody new comes")
        origin.release()
        response = busy.response()
        assert response.status == 200 and len(response.body) == 5000
        assert (response.value("Connection") or "").lower() == "close"
        assert process.wait(20) == 0
    assert "broken off" not in balancer.log()


def test_an_exchange_that_hangs_does_not_outlive_graceful_timeout(rig: Rig) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1, extra=["--graceful-timeout", "2"])
    assert balancer.process is not None
    with Connection(balancer.address) as hanging, origin.released_at_end(), timed() as took:
        hanging.send(request_bytes("/hold"))
        origin.wait_for_in_flight(1)
        os.kill(balancer.master, signal.SIGTERM)
        assert balancer.process.wait(20) == 0
        with pytest.raises(Truncated):
            hanging.response()
    assert took[0] >= 1.5
    assert "1 connections broken off at the end of graceful_timeout" in balancer.log()


def test_an_upgrade_hands_over_without_a_failed_request(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2, extra=["--pid", "gunicorn.pid"])
    old = balancer.master
    new_pid_file = balancer.folder / "gunicorn.pid.2"
    new = 0
    try:
        with KeptLoad(balancer.address, 4) as load:
            os.kill(old, signal.SIGUSR2)
            wait_until(new_pid_file.exists, "the new master")
            new = int(new_pid_file.read_text())
            wait_until(lambda: len(processes.children(new)) >= 2, "its workers")
            wait_until(lambda: all(processes.catches(pid, signal.SIGABRT) for pid in processes.children(new)), "they are up")
            load.wait_for(200)
            os.kill(old, signal.SIGTERM)
            assert balancer.process is not None
            balancer.process.wait(20)
            load.wait_for(200)
    finally:  # not before the load has ended
        if new:
            os.kill(new, signal.SIGQUIT)
            wait_until(lambda: not processes.is_running(new), "the new master ends")
    assert load.failures == []


def test_a_frozen_worker_is_replaced_and_a_busy_one_is_not(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(2).addresses), PROXY, workers=2, extra=["--timeout", "5"])
    frozen, busy = balancer.workers()
    os.kill(frozen, signal.SIGSTOP)
    with Load(balancer.address, 4, "/") as load:
        wait_until(lambda: frozen not in balancer.workers(), "the frozen worker was killed")
        load.wait_for_successes(100)
    assert busy in balancer.workers() and f"WORKER TIMEOUT (pid:{frozen})" in balancer.log()
    balancer.wait_for_workers(2, without=[frozen])
    balancer.wait_until_idle()


def test_the_heartbeat_needs_no_disk(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=2)
    for pid in balancer.workers():
        opened = processes.open_files(pid)
        assert any(name.startswith("/dev/shm/wgunicorn") for name in opened), opened


def test_several_listeners_and_a_unix_socket(rig: Rig, tmp_path: Path) -> None:
    path, port = tmp_path / "lb.sock", free_port()
    more = ["-b", f"unix:{path}", "-b", f"{HOST}:{port}"]
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=2, extra=more)
    assert fetch((HOST, port)).status == 200
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request_bytes("/echo", fields=[("X-Forwarded-For", "192.0.2.9")], close=True))
        data = b"".join(iter(lambda: client.recv(65536), b""))
    assert data.startswith(b"HTTP/1.1 200 ") and b'"192.0.2.9, unknown"' in data, "its clients are believed"
    assert fetch(balancer.address).status == 200


def test_a_socket_from_systemd_is_used(rig: Rig) -> None:
    """As systemd hands it over: descriptor 3, LISTEN_FDS, LISTEN_PID (sd_listen_fds(3))."""
    origin = rig.origin(1)
    balancer = rig.new_balancer(pool_text(origin.addresses), PROXY)
    with socket.create_server((HOST, 0)) as listener:
        start = 'exec 3<&"$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        with balancer.log_file.open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", start, str(listener.fileno()), *GUNICORN, "-c", str(REPOSITORY / "gunicorn.conf.py"), "-w", "2",
                 "prefork_lb:app"],
                cwd=balancer.folder, env=balancer.environment(), stdout=log, stderr=log, pass_fds=[listener.fileno()],
            )
        try:
            address = listener.getsockname()
            wait_until(lambda: "Booting worker" in balancer.log(), balancer.log)
            assert fetch(address, "/bytes?n=7").body == fetch(address, "/bytes?n=7").body != b""
            # A worker that has no handlers of its own yet may lose the signal of the end.
            wait_until(lambda: sum(processes.catches(pid, signal.SIGABRT) for pid in processes.children(process.pid)) >= 2,
                       balancer.log)
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_worker_connections_holds_clients_back_and_loses_none(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, extra=["--worker-connections", "4"])
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(Connection(balancer.address)) for _ in range(12)]
        for connection in many:
            connection.send(request_bytes("/", close=True))
        assert [connection.response().status for connection in many] == [200] * 12
        kept = [stack.enter_context(Connection(balancer.address)) for _ in range(4)]
        for connection in kept:
            assert connection.request("/").status == 200
        late = stack.enter_context(Connection(balancer.address))
        late.send(request_bytes("/"))
        late.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            late.receive()
        kept[0].close()
        late.sock.settimeout(20)
        assert late.response().status == 200


def test_gunicorns_limits_of_a_head_hold(rig: Rig) -> None:
    limits = ["--limit-request-line", "200", "--limit-request-fields", "20", "--limit-request-field_size", "300"]
    address = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, extra=limits).address
    assert fetch(address, "/" + "x" * 250).status == 414
    assert fetch(address, "/bytes?n=1", fields=[(f"X-{number}", "v") for number in range(25)]).status == 431
    assert fetch(address, "/bytes?n=1", fields=[("X-Long", "v" * 400)]).status == 431
    assert fetch(address, "/bytes?n=1", fields=[("X-Fits", "v" * 150)]).status == 200


def test_without_keepalive_every_connection_serves_one_request(rig: Rig) -> None:
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, extra=["--keep-alive", "0"])
    with Connection(balancer.address) as connection:
        response = connection.request("/bytes?n=9")
        assert len(response.body) == 9 and (response.value("Connection") or "").lower() == "close"
        assert connection.ended()


def test_the_access_log_has_gunicorns_keys(rig: Rig) -> None:
    keys = ["h", "m", "U", "q", "H", "s", "B", "{x-asked}i", "{x-served-by}o", "{server_port}e", "r", "D", "p", "f"]
    form = "|".join(f"%({key})s" for key in keys)
    more = ["--access-logfile", "access.log", "--access-logformat", form]
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1, extra=more)
    port = balancer.address[1]
    log = balancer.folder / "access.log"
    assert fetch(balancer.address, "/bytes?n=70000", fields=[("X-Asked", "me")]).status == 200
    assert fetch(balancer.address, "/bytes?n=30", "HEAD").status == 200
    assert fetch(balancer.address, "/bytes", "POST", fields=[("Transfer-Encoding", "gzip, chunked")]).status == 501
    with Connection(balancer.address) as connection:
        connection.send(b"NOT HTTP\r\n\r\n")
        assert connection.response().status == 400

    def asked_here() -> list[str]:
        """The lines but for those of the probes at the start."""
        return [line for line in log.read_text().splitlines() if "|GET / HTTP/1.1|" not in line]

    lines = wait_until(lambda: len(asked_here()) >= 4 and asked_here(), "four lines")
    assert lines and len(lines) == 4
    found = [line.split("|") for line in lines]
    assert found[0][:11] == ["127.0.0.1", "GET", "/bytes", "n=70000", "HTTP/1.1", "200", "70000", "me", "origin-0", str(port),
                             "GET /bytes?n=70000 HTTP/1.1"]
    assert int(found[0][11]) > 0 and found[0][12] == f"<{balancer.workers()[0]}>" and found[0][13] == "-"
    assert (found[1][1], found[1][5], found[1][6]) == ("HEAD", "200", "0")
    assert [fields[5] for fields in found[2:]] == ["501", "400"]


APPLICATION = '''
import os
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise RuntimeError("on purpose")
    if path == "/late":
        def late():
            yield b"some"
            raise RuntimeError("on purpose, late")
        start_response("200 OK", [("Content-Length", "10")])
        return late()
    body = environ["wsgi.input"].read()
    told = "|".join([environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], environ.get("HTTP_X_ONE", "-"),
                     environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], str(len(body))]).encode()
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([told[:5], b"", told[5:]])
    start_response("203 Mine", [("Content-Length", str(len(told))), ("X-Mine", "yes")])
    return [told]
'''


def test_another_application_is_called_as_wsgi(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(APPLICATION)
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*GUNICORN, "-k", "prefork_lb.worker.ProxyWorker", "-b", f"{HOST}:{port}", "--no-control-socket",
             "--keep-alive", "60", "other:app"],
            cwd=tmp_path, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    address = (HOST, port)

    try:
        wait_until(lambda: "Booting worker" in log.read_text(), log.read_text)
        with Connection(address) as connection:
            for _ in range(3):
                response = connection.request("/a%20b?c=d", fields=[("X-One", "1"), ("X_Two", "2"), ("X-One", "3")])
                assert (response.status, response.value("X-Mine")) == (203, "yes")
                assert response.body == b"GET|/a b|c=d|1,3|127.0.0.1|http|0"
            assert connection.request("/x", "POST", body=b"y" * 100_000).body.endswith(b"|100000")
            assert connection.request("/x", "HEAD").status == 203
        chunked = request_bytes("/x", "PUT", fields=[("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n0\r\n\r\n"
        with Connection(address) as connection:
            connection.send(chunked)
            assert connection.response("PUT").body.endswith(b"|3")
            assert connection.request("/stream").body == b"GET|/stream||-|127.0.0.1|http|0"
        assert fetch(address, "/fail").status == 500
        with pytest.raises(Truncated):
            fetch(address, "/late")
        assert fetch(address, "/x").status == 203
        wait_until(lambda: len(re.findall("on purpose", log.read_text())) >= 2, log.read_text)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_policy_that_fails_is_an_error_page_and_leaves_nothing(rig: Rig) -> None:
    balancer = rig.new_balancer(pool_text(rig.origin(1).addresses, "broken_policy:Broken"), PROXY, workers=1)
    (balancer.folder / "broken_policy.py").write_text(
        "class Broken:\n    def __init__(self, rng, memory): pass\n"
        "    def pick(self, candidates, request): raise LookupError('mine')\n")
    balancer.start()
    with Connection(balancer.address) as connection:
        for _ in range(2):
            response = connection.request("/")
            assert response.status == 500 and b"mine" not in response.body
    wait_until(lambda: "LookupError: mine" in balancer.log(), balancer.log)
    balancer.wait_until_idle()


def test_a_body_that_ends_with_its_connection_is_never_cut_in_order(rig: Rig) -> None:
    """Nothing but a reset tells the client that the end is missing."""
    origin = rig.origin(1)
    balancer = rig.balancer("[proxy.timeouts]\nidle = 2\n" + pool_text(origin.addresses), PROXY, workers=1,
                            extra=["--graceful-timeout", "1"])

    def client_takes_nothing() -> None:
        wait_until(lambda: not sum(origin.in_flight), "the worker has given the client up")

    def worker_is_killed() -> None:
        balancer.kill_worker(balancer.workers()[0])

    def instance_stops() -> None:
        os.kill(balancer.master, signal.SIGTERM)

    for cut, target in ((client_takes_nothing, "/bytes?n=50000000&framing=close"),
                        (worker_is_killed, "/stall-body?n=5000&sent=1000&framing=close"),
                        (instance_stops, "/stall-body?n=5000&sent=1000&framing=close")):
        with Connection(balancer.address, receive_buffer=4096) as client:
            client.send(request_bytes(target))
            data = b""
            while len(data.partition(b"\r\n\r\n")[2]) < 1000:
                data += client.sock.recv(1000)
            cut()
            with pytest.raises(ConnectionResetError):
                while client.sock.recv(1 << 20):
                    pass
    origin.release()
