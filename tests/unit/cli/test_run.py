"""`prefork-lb run` and `prefork-lb traffic` as processes of their own."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support import processes
from tests.support.balancer import segments
from tests.support.client import fetch
from tests.support.place import clean_environment
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]


def environment() -> dict[str, str]:
    return clean_environment()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefork_lb", *arguments]


@contextmanager
def app_server(name: str, delay_ms: int = 0) -> Iterator[str]:
    """A demo server in a process of its own; gives its address."""
    started = subprocess.Popen(
        [sys.executable, "-m", "prefork_lb.cli.demo_server", name, str(delay_ms)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert started.stdout is not None and started.stdin is not None
    try:
        yield f"127.0.0.1:{int(started.stdout.readline())}"
    finally:
        started.stdin.close()
        assert started.wait(10) == 0
        started.stdout.close()


@contextmanager
def started_run(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`prefork-lb run` in `folder`; gives the process and the URL at which it listens."""
    log_file = folder / "run.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command("run", *arguments), cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        listening = re.compile(r"Listening at: (http://\S+)")
        found = wait_until(
            lambda: listening.search(log_file.read_text()) or process.poll() is not None, log_file.read_text, 30
        )
        assert isinstance(found, re.Match), log_file.read_text()
        yield process, found[1]
    finally:
        children = processes.children(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in (process.pid, *children):
                if processes.is_running(pid):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            for segment in segments(process.pid):
                segment.unlink(missing_ok=True)


def test_run_balances_over_servers_of_the_command_line(tmp_path: Path) -> None:
    with app_server("one") as one, app_server("two") as two:
        arguments = ["--server", one, "--server", f"{two} weight=3", "--policy", "weighted-round-robin"]
        with started_run(tmp_path, *arguments, "--bind", "127.0.0.1:0", "--workers", "2") as (process, url):
            assert "gunicorn" in processes.command_line(process.pid)  # the process became gunicorn's master
            wait_until(lambda: len(processes.children(process.pid)) == 2, "two workers")
            answers = [requests.get(url, timeout=10).text.strip() for _ in range(40)]
    assert {name: answers.count(name) for name in ("one", "two")} == {"one": 10, "two": 30}


def test_run_balances_over_servers_of_a_file(tmp_path: Path) -> None:
    with app_server("one") as one:
        (tmp_path / "some.toml").write_text(
            f'[listen]\nbind = ["127.0.0.1:1"]\nworkers = 1\n[pools.web]\nservers = ["{one}"]\n'
        )
        # gunicorn's own option wins over the file's, and comes through.
        with started_run(tmp_path, "--config", "some.toml", "--", "--bind", "127.0.0.1:0") as (process, url):
            assert requests.get(url, timeout=10).text == "one\n"
            assert len(processes.children(process.pid)) == 1


def test_run_with_a_broken_file_ends_with_its_problems(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text('[pools.web]\nservers = ["127.0.0.1:0"]\nploicy = "first"\n')
    found = subprocess.run(
        command("run", "--config", "broken.toml"), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert found.returncode != 0
    assert "broken.toml:2: pools.web.servers[0]" in found.stderr
    assert "broken.toml:3: pools.web.ploicy" in found.stderr
    assert "Traceback" not in found.stderr


def test_traffic_prints_a_table_of_servers_and_succeeds(tmp_path: Path) -> None:
    with app_server("one") as one:
        found = subprocess.run(
            command("traffic", f"http://{one}/", "--requests", "20", "--clients", "3"),
            env=environment(), capture_output=True, text=True, timeout=60,
        )
    assert (found.returncode, found.stderr) == (0, "")
    header, row, closing = found.stdout.splitlines()
    assert header.split() == "server requests share mean ms p50 ms p95 ms max ms status codes".split()
    assert re.match(r"one +20 +100\.0% +(\d+\.\d +){4}200 x 20", row)
    assert re.fullmatch(r"20 requests in \d+\.\d\d s \(\d+/s\), 0 failed", closing)


def test_traffic_prints_json(tmp_path: Path) -> None:
    with app_server("one") as one:
        found = subprocess.run(
            command("traffic", f"http://{one}/", "--requests", "5", "--json"),
            env=environment(), capture_output=True, text=True, timeout=60,
        )
    report = json.loads(found.stdout)
    assert (found.returncode, report["requests"], report["failed"]) == (0, 5, 0)
    assert report["servers"]["one"]["statuses"] == {"200": 5}


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_traffic_fails_when_requests_fail(json_flag: list[str]) -> None:
    with app_server("one") as closed:
        pass
    found = subprocess.run(
        command("traffic", f"http://{closed}/", "--requests", "3", *json_flag),
        env=environment(), capture_output=True, text=True, timeout=60,
    )
    assert found.returncode == 1
    assert "Connection refused" in found.stdout


def test_traffic_refuses_what_is_no_url() -> None:
    found = subprocess.run(command("traffic", "127.0.0.1:80"), env=environment(), capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "Invalid value for URL: '127.0.0.1:80' is not a URL such as http://127.0.0.1:8000/" in found.stderr


def test_a_demo_server_says_nothing_of_a_client_that_left() -> None:
    """A thread that wrote a traceback while the server ended had Python abort."""
    started = subprocess.Popen([sys.executable, "-m", "prefork_lb.cli.demo_server", "one", "50"], env=environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdin is not None and started.stdout is not None
    address = "127.0.0.1", int(started.stdout.readline())
    with socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # This client comes after the one that left, so its answer comes after the attempt to answer that one.
    assert fetch(address, fields=[("Host", "a")]).status == 200
    assert started.communicate(timeout=30) == ("", "")
    assert started.returncode == 0


def test_an_interrupted_traffic_prints_what_there_is() -> None:
    with app_server("one", delay_ms=20) as one:
        # Far more than can be answered before the signal, which comes as soon as a client has connected.
        process = subprocess.Popen(
            command("traffic", f"http://{one}/", "--requests", "1000000", "--clients", "2", "--json"),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        threads = Path(f"/proc/{process.pid}/task")
        wait_until(lambda: len(list(threads.iterdir())) >= 3, "the clients' threads", 30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    report = json.loads(out)
    assert (process.returncode, report["failed"], err) == (130, 0, "")
    assert 0 <= report["requests"] < 1_000_000
