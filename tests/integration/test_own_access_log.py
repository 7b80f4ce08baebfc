"""`[log] access`: a line for each exchange, from all workers, over kills, rotation and a full disk."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Connection
from tests.support.load import Load
from tests.support.ports import refusing_address
from tests.support.rig import Rig
from tests.support.waiting import wait_until

DEADLINE_S = 20.0
FRONT_ENDS = pytest.mark.parametrize("front_end", [GTHREAD, PROXY], ids=str)


def start(rig: Rig, front_end: FrontEnd, access: str = "access.log", workers: int = 4, more: str = "") -> Balancer:
    text = pool_text(rig.origin(2).addresses) + f'[log]\naccess = "{access}"\n{more}\n'
    return rig.balancer(text, front_end, workers=workers)


def lines_of(*files: Path, torn: int = 0) -> list[dict[str, Any]]:
    """The lines that are there, each of which must be whole, but for so many that are `torn`.

    A file grows by pages while a batch is written to it, so what stands behind the last line feed is still on its way.
    """
    found = []
    for file in files:
        for line in file.read_bytes().split(b"\n")[:-1] if file.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                torn -= 1
                assert torn >= 0, line
    return found


def targets(*files: Path, torn: int = 0) -> list[str]:
    """What was asked for; but "/", which is asked for at the start."""
    return sorted(line["target"] for line in lines_of(*files, torn=torn) if line["target"] != "/")


def ask(balancer: Balancer, count: int, prefix: str) -> list[str]:
    """So many requests, each of which is answered; their targets."""
    asked = [f"/?at={prefix}{number:04d}" for number in range(count)]
    for begin in range(0, count, 50):
        with Connection(balancer.address) as connection:
            for target in asked[begin:begin + 50]:
                assert connection.request(target).status == 200
    return asked


@FRONT_ENDS
def test_a_line_tells_of_an_exchange(rig: Rig, front_end: FrontEnd) -> None:
    with refusing_address() as closed:
        text = pool_text([closed, *rig.origin(1).addresses], "first") + '[log]\naccess = "access.log"\n'
        balancer = rig.balancer(text, front_end, workers=1)
        with Connection(balancer.address) as connection:
            connection.send(b"POST /?a=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: test/1\r\nContent-Length: 3\r\n\r\nabc")
            body = connection.response().body
        file = balancer.folder / "access.log"
        line = wait_until(lambda: [found for found in lines_of(file) if "user_agent" in found], "the line", DEADLINE_S)[0]
    answering = line.pop("server")
    assert line.pop("failures")[0].startswith(f"{closed}: connect: ")
    assert answering != closed
    assert 0 < line.pop("connect_ms") and 0 < line.pop("first_byte_ms") <= line.pop("total_ms")
    assert line.pop("pid") in balancer.workers() and line.pop("time")
    assert line == {
        "client": "127.0.0.1", "method": "POST", "scheme": "http", "host": "a.test", "target": "/?a=1",
        "protocol": "HTTP/1.1", "user_agent": "test/1", "pool": "web", "status": 200, "bytes_in": 3, "bytes_out": len(body),
        "picked": "another attempt", "session": "none", "attempts": 2, "retries": 1, "queue_ms": 0, "ending": "finished",
    }


@FRONT_ENDS
def test_how_exchanges_end(rig: Rig, front_end: FrontEnd) -> None:
    balancer = start(rig, front_end, workers=1)
    with Connection(balancer.address) as connection:
        connection.send(b"GET /broken HTTP/1.1\r\nHost: a.test\r\n\r\n")
        with pytest.raises(Exception):  # noqa: B017
            connection.response()
    with Connection(balancer.address) as connection:
        connection.send(b"TRACE /trace HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        assert connection.response().status == 405
    with Connection(balancer.address) as connection:
        connection.send(b"POST /left HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
        connection.sock.shutdown(1)
        connection.ended()
    file = balancer.folder / "access.log"
    wanted = {"/broken": "server broke off", "/trace": "refused", "/left": "client left"}

    def found() -> dict[str, str]:
        return {line["target"]: line["ending"] for line in lines_of(file) if line["target"] in wanted}

    wait_until(lambda: found() == wanted, lambda: f"{found()}", DEADLINE_S)


@FRONT_ENDS
def test_why_a_request_got_a_502_is_found_by_its_id(rig: Rig, front_end: FrontEnd) -> None:
    with refusing_address() as closed:
        text = pool_text([closed]) + '[proxy]\nrequest_id = true\n[log]\naccess = "access.log"\n'
        balancer = rig.balancer(text, front_end, workers=1)
        with Connection(balancer.address) as connection:
            response = connection.request("/cart")
    name = response.value("X-Request-ID")
    assert response.status == 502 and name is not None and f"Request ID: {name}".encode() in response.body

    def story() -> str:
        return balancer.by_hand("log", "--request", name).stdout

    told = wait_until(story, "the line", DEADLINE_S)
    assert "/cart: 502, server failed" in told and f"why: connect: {closed}" in told
    assert f"server: {closed} of the pool web" in told


@FRONT_ENDS
def test_rotation_under_load_loses_no_line(rig: Rig, front_end: FrontEnd) -> None:
    balancer = start(rig, front_end)
    file, files = balancer.folder / "access.log", []
    asked: list[str] = []
    for number in range(3):
        asked += ask(balancer, 150, f"{number}-")
        old = balancer.folder / f"access.log.{number}"
        wait_until(file.exists, "the file", DEADLINE_S)
        file.rename(old)
        files.append(old)
        os.kill(balancer.master, signal.SIGUSR1)
        asked += ask(balancer, 150, f"{number}+")

    def are_in_the_new_file() -> bool:
        asked.extend(ask(balancer, 1, f"{len(asked)}-"))
        return file.exists() and file.stat().st_size > 0

    wait_until(are_in_the_new_file, "lines in the new file", DEADLINE_S, every=0.1)
    os.kill(balancer.master, signal.SIGTERM)
    assert balancer.process is not None
    balancer.process.wait(DEADLINE_S)
    assert targets(*files, file) == sorted(asked)


@FRONT_ENDS
def test_killed_workers_lose_only_lines_that_were_not_written_yet(rig: Rig, front_end: FrontEnd) -> None:
    balancer = start(rig, front_end)
    file = balancer.folder / "access.log"
    with Load(balancer.address, 4, "/?load") as load:
        load.wait_for_successes(100)
        for _ in range(3):
            victim = balancer.workers()[0]
            balancer.kill_worker(victim)
            balancer.wait_for_workers(4, without=[victim])
            load.wait_for_successes(50)
    before = load.succeeded
    # SIGKILL breaks a write off at the end of a page, and the next line of another worker follows there.
    wait_until(lambda: len(targets(file, torn=3)) > before / 2, "most lines", DEADLINE_S)
    asked = ask(balancer, 20, "after-")
    wait_until(lambda: set(asked) <= set(targets(file, torn=3)), "the lines after the kills", DEADLINE_S)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@FRONT_ENDS
def test_a_full_disk_loses_lines_and_no_request(tmp_path: Path, small_disk: Path, front_end: FrontEnd) -> None:
    with Rig(tmp_path / "rig") as rig:
        balancer = start(rig, front_end, str(small_disk / "access.log"), workers=1)
        with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
            while other.write(b"x" * 4096):
                pass
        ask(balancer, 200, "full-")
        wait_until(lambda: "cannot be written" in balancer.log(), "what the log says of it", DEADLINE_S)
        (small_disk / "other").unlink()
        asked = ask(balancer, 20, "after-")
        wait_until(lambda: "lines were lost" in balancer.log(), "what the log says of it", DEADLINE_S)
        wait_until(lambda: all(target.encode() in (small_disk / "access.log").read_bytes() for target in asked), "lines again",
                   DEADLINE_S)
        assert balancer.log().count("cannot be written") == 1, f"told once:\n{balancer.log()}"


def test_lines_go_to_standard_output(rig: Rig) -> None:
    balancer = start(rig, PROXY, "-", workers=2, more='format = "{method} {target} {status}"')
    ask(balancer, 5, "out-")
    wait_until(lambda: "GET /?at=out-0004 200" in balancer.log(), "the line", DEADLINE_S)


@FRONT_ENDS
def test_the_error_log_is_json_from_its_first_line_on(rig: Rig, front_end: FrontEnd) -> None:
    with refusing_address() as closed:
        balancer = rig.balancer(pool_text([closed]) + '[log]\nerrors = "json"\n', front_end, workers=1)
        with Connection(balancer.address) as connection:
            assert connection.request("/").status == 502
        balancer.reload()

        log = balancer.log_file
        wait_until(lambda: any("controller of gunicorn" in line["message"] for line in lines_of(log)), "the controller's line",
                   DEADLINE_S)
    told = [line for line in lines_of(log) if line.get("server") == closed and line.get("pool") == "web"]
    assert "warning" in [line["level"] for line in told]
