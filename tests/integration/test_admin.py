"""The administration interface beside real workers: what it answers when they do not run, and what they notice of it."""
from __future__ import annotations

import os
import signal
import stat

from prefork_lb.admin.streaming import MOST_STREAMS
from tests.support import processes
from tests.support.admin import Admin
from tests.support.balancer import PROXY, Balancer, pool_text, stopped
from tests.support.client import Burst, fetch
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until


def start(rig: Rig, bind: str = "", more: str = "") -> tuple[Balancer, Admin]:
    """A balancer before two servers, with an administration interface that answers."""
    origin = rig.origin(2)
    bind = bind or f"unix:{rig.folder}/admin.sock"
    balancer = rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "{bind}"\n{more}', PROXY, workers=2)
    admin = Admin(bind)
    admin.wait()
    return balancer, admin


def admin_pid(balancer: Balancer) -> int:
    """The pid of its process, 0 while there is none."""
    controller = balancer.status().instance["controller"]
    found = [pid for pid in processes.children(controller) if "prefork_lb.admin" in processes.command_line(pid)]
    return found[0] if found else 0


def test_the_interface_answers_while_no_worker_runs(rig: Rig) -> None:
    balancer, admin = start(rig)
    assert fetch(balancer.address).status == 200
    with stopped(balancer.workers()):
        document = admin.instance()
    assert [server["address"] for server in document["pools"][0]["servers"]] == [
        server["address"] for server in balancer.status().instance["servers"]]
    assert sorted(worker["pid"] for worker in document["workers"]) == sorted(balancer.workers())


def test_killed_it_comes_back_and_the_workers_notice_nothing(rig: Rig) -> None:
    balancer, admin = start(rig)
    first = admin_pid(balancer)
    os.kill(first, signal.SIGKILL)
    assert fetch(balancer.address).status == 200
    admin.wait()
    assert admin_pid(balancer) not in (0, first)
    assert balancer.status().instance["repairs"] == 0
    # A controller that is killed takes it along, and the next one starts another.
    second, controller = admin_pid(balancer), balancer.status().instance["controller"]
    os.kill(controller, signal.SIGKILL)
    wait_until(lambda: not processes.is_running(second), "it ends with its controller", 20)
    wait_until(lambda: balancer.status().instance["controller"] not in (0, controller), "another controller", 20)
    admin.wait()


def test_it_follows_the_configuration(rig: Rig) -> None:
    balancer, admin = start(rig)
    path = rig.folder / "admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = balancer.config_file.read_text()
    moved = f"{HOST}:{free_port()}"
    balancer.config_file.write_text(text.replace(f"unix:{path}", moved))
    balancer.reload()
    Admin(moved).wait()
    wait_until(lambda: not path.exists(), "the socket is removed", 20)
    balancer.config_file.write_text(text.partition("[admin]")[0])
    balancer.reload()
    wait_until(lambda: not Admin(moved).is_up(), "it ends", 20)


def test_the_public_listener_does_not_lead_to_it(rig: Rig) -> None:
    balancer, admin = start(rig)
    paths = ("/api/v1/instance", "/healthz", "/metrics", "//api/v1/instance", "http://localhost/api/v1/instance")
    for path in paths:
        response = fetch(balancer.address, path)
        assert b'"pools"' not in response.body and b"alive" not in response.body
    # The servers had them all.
    wait_until(lambda: sum(server["requests"] for server in admin.instance()["pools"][0]["servers"]) == len(paths), "counted", 20)


def test_a_stream_tells_what_changes_and_ends_with_its_page(rig: Rig) -> None:
    balancer, admin = start(rig)
    connection = admin.connection()
    connection.request("GET", "/api/v1/stream")
    stream = connection.getresponse()
    assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream")

    def next_message() -> tuple[str, str]:
        lines: list[str] = []
        while not (lines and not lines[-1]):
            lines.append(stream.readline().decode().rstrip("\n"))
        fields = dict(line.partition(": ")[::2] for line in lines if line)
        return fields["event"], fields["data"]

    assert next_message()[0] == "snapshot"
    wait_until(lambda: next_message()[0] == "delta", "a change is told", 20)
    assert fetch(balancer.address).status == 200
    wait_until(lambda: '"requests":1' in next_message()[1], "the request is told", 20)
    balancer.config_file.write_text(balancer.config_file.read_text() + pool_text([f"{HOST}:1"], name="more") +
                                    '[[routes]]\npool = "web"\n')
    os.kill(balancer.master, signal.SIGHUP)
    wait_until(lambda: (message := next_message())[0] == "snapshot" and '"more"' in message[1], "the new pool is told", 20)
    # A page that is closed gives its place back.
    others = [admin.connection() for _ in range(MOST_STREAMS)]
    responses = []  # kept: a response that nobody has closes its connection
    for other in others:
        other.request("GET", "/api/v1/stream")
        responses.append(other.getresponse())
    assert [response.status for response in responses] == [200] * (MOST_STREAMS - 1) + [503]
    for each in (connection, *others, stream, *responses):
        each.close()
    wait_until(lambda: has_room(admin), "there is room again", 20, every=0.2)


def has_room(admin: Admin) -> bool:
    """Whether one more stream is let in."""
    connection = admin.connection()
    try:
        connection.request("GET", "/api/v1/stream")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def test_a_reload_is_asked_for_and_a_bad_file_is_told(rig: Rig) -> None:
    balancer, admin = start(rig)
    generation, text = admin.instance()["generation"], balancer.config_file.read_text()
    balancer.config_file.write_text(text.replace("servers", "serverz"))
    refused = admin.ask("/api/v1/reload", "POST")
    assert refused.status == 409 and "did you mean servers" in refused.json["detail"]
    balancer.config_file.write_text(text.replace("[\n", f'[\n"{HOST}:1",\n', 1))
    assert admin.ask("/api/v1/reload", "POST").status == 202
    wait_until(lambda: len(admin.instance()["pools"][0]["servers"]) == 3, "the new server is there", 20, every=0.1)
    assert admin.instance()["generation"] > generation


def test_a_change_is_in_force_for_all_workers(rig: Rig) -> None:
    balancer, admin = start(rig)
    first, second = (server["address"] for server in admin.instance()["pools"][0]["servers"])
    path = f"/api/v1/pools/web/servers/{first}"
    assert admin.ask(path, "PATCH", {"max_connections": 2}).json["max_connections"] == 2
    assert admin.ask(f"/api/v1/pools/web/servers/{second}", "PATCH", {"admin": "drain"}).status == 200
    with Burst(balancer.address, 3) as burst:
        wait_until(lambda: burst.answered() == 1 and balancer.status().in_flight[first] == 2, "one is refused and two wait", 20)
    balancer.wait_until_idle()
    for value, server in (({"admin": "drain"}, first), ({"admin": "ready"}, second)):
        assert admin.ask(f"/api/v1/pools/web/servers/{server}", "PATCH", value).status == 200
    before = {server["address"]: server["requests"] for server in balancer.status().instance["servers"]}
    assert [fetch(balancer.address).status for _ in range(8)] == [200] * 8
    after = {server["address"]: server["requests"] for server in balancer.status().instance["servers"]}
    assert (after[first] - before[first], after[second] - before[second]) == (0, 8)
    assert "local (localhost): server" in balancer.log()
