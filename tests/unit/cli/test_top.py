"""`prefork-lb top`: each frame fits the terminal, its keys do what they say, and the terminal is as before afterwards."""
from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from prefork_lb.cli.keyboard import split_keys
from prefork_lb.cli.main import main
from prefork_lb.cli.top_screen import Screen
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from tests.support.waiting import wait_until

LONG = "application-server-0001.datacentre-north.internal.example.org:18080"


def server(address: str, **more: Any) -> dict[str, Any]:
    return {"pool": "web", "address": address, "state": "up", "reason": "", "usable": True, "weight": 1, "max_connections": 0,
            "backup": False, "in_flight": 0, "rate": 0.0, "codes": None, "failures": 0, "latency_ms": None} | more


class Fake:
    """An instance that notes what is done to it."""

    name = "fake"

    def __init__(self, *servers: dict[str, Any]) -> None:
        self.servers = list(servers)
        self.done: list[tuple[Any, ...]] = []
        self.problem = ""

    def document(self) -> dict[str, Any]:
        self._check()
        totals = {"rate": 12.34, "error_rate": None, "in_flight": 3, "waiting": 0, "clients": 7, "p50_ms": 2.0, "p99_ms": 30.0}
        return {"master": 1, "generation": 4, "workers": [{"pid": 5, "lingers_s": 0}], "controller": None, "totals": totals,
                "pools": [{"servers": self.servers}]}

    def set_admin(self, *change: Any) -> None:
        self._check()
        self.done.append(change)

    def set_weight(self, *change: Any) -> None:
        self._check()
        self.done.append(change)

    def _check(self) -> None:
        if self.problem:
            raise click.ClickException(self.problem)


def lines(screen: Screen, width: int = 80, height: int = 24) -> list[str]:
    """The frame, as a terminal of this size shows it."""
    out = io.StringIO()
    Console(file=out, width=width, height=height, markup=False, emoji=False, highlight=False).print(screen.frame(height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def new_screen(*servers: dict[str, Any]) -> tuple[Screen, Fake]:
    fake = Fake(*servers)
    screen = Screen(fake)  # type: ignore[arg-type]  # it has what top uses
    screen.look()
    return screen, fake


def press(screen: Screen, *keys: str) -> None:
    for key in keys:
        screen.press(key)


def shown(screen: Screen) -> list[str]:
    """The addresses in the frame, in order."""
    return [line.split()[1] for line in lines(screen) if line.startswith("web ")]


def test_the_whole_instance_is_on_one_page() -> None:
    screen, _ = new_screen(server("10.0.0.1:80", in_flight=3, max_connections=9, rate=12.34, codes={"5xx": 8}, latency_ms=4.56),
                           server("10.0.0.2:80", state="down", reason="status 503, expected 200-399", usable=False))
    page = "\n".join(lines(screen))
    for words in ("master 1  1 worker  generation 4  no controller is at work", "requests 12.3/s  errors -", "3 in flight",
                  "7 clients", "p50 2  p99 30 ms", "2 servers by order", "q quit"):
        assert words in page
    [row] = [line for line in lines(screen) if "10.0.0.1:80" in line]
    assert row.split() == ["web", "10.0.0.1:80", "up", "1", "3/9", "12.3/s", "8", "4.6", "ms"]
    press(screen, "j")
    assert "10.0.0.2:80: status 503, expected 200-399" in lines(screen)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (200, 50), (20, 7), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_frame_fits_the_terminal(width: int, height: int, count: int) -> None:
    screen, _ = new_screen(*(server(LONG.replace("0001", f"{number:04}"), reason="r" * 300) for number in range(count)))
    for keys in ("j" * 600, "k" * 3, "s", "w", "1" * 99):
        press(screen, *keys)
        page = lines(screen, width, height)
        assert len(page) <= max(height, 7) and all(len(line) <= width for line in page)


def test_the_cursor_stays_in_sight_and_with_its_server() -> None:
    addresses = [f"10.0.0.{number}:80" for number in range(100)]
    screen, fake = new_screen(*map(server, addresses))
    assert shown(screen) == addresses[:18]
    press(screen, *["down"] * 20)
    assert shown(screen) == addresses[3:21]
    press(screen, "page-down", *["up"] * 3)
    assert addresses[35] in shown(screen)
    fake.servers.reverse()
    screen.look()
    press(screen, "d")
    assert fake.done == [("web", addresses[35], "drain")] and addresses[35] in shown(screen)
    press(screen, *["k"] * 200, "r")
    assert fake.done[1] == ("web", addresses[99], "ready")


def test_keys_set_states_and_weights_of_the_chosen_server() -> None:
    screen, fake = new_screen(server("a:80"), server("b:80"))
    press(screen, "j", "d", "m", "r", "w", "4", "x", "backspace", "2", "enter", "w", *"default", "enter")
    assert fake.done == [("web", "b:80", "drain"), ("web", "b:80", "maintenance"), ("web", "b:80", "ready"), ("web", "b:80", 42),
                         ("web", "b:80", None)]
    assert "b:80 (pool web): weight default" in lines(screen)
    for typed in ("0", "1001", "ten", "", "１"):
        press(screen, "w", *typed, "enter")
        assert f"{typed!r} is no weight; expected 1 to 1000, or \"default\"" in lines(screen)
    press(screen, "w", "5", "escape")
    assert len(fake.done) == 5 and not screen.is_over
    press(screen, "q")
    assert screen.is_over


def test_rows_are_sorted_and_found() -> None:
    screen, _ = new_screen(server("a:80", in_flight=1, rate=5.0, latency_ms=9.0, codes={"5xx": 0}),
                           server("b:80", in_flight=7, rate=1.0, latency_ms=None, codes={"5xx": 4}),
                           server("c:80", usable=False, state="down", rate=3.0, latency_ms=20.0, codes={"5xx": 1}))
    orders = []
    for _ in range(7):
        orders.append("".join(address[0] for address in shown(screen)))
        press(screen, "s")
    assert orders == ["abc", "cab", "bac", "acb", "bca", "cab", "abc"] and shown(screen) == ["a:80", "b:80", "c:80"]
    press(screen, "S")
    assert shown(screen) == ["c:80", "b:80", "a:80"]
    press(screen, "/", *"down", "enter")
    assert shown(screen) == ["c:80"] and '1 server by order, reversed, with "down"' in lines(screen)
    press(screen, "/", "enter")
    assert len(shown(screen)) == 3


def test_an_instance_that_does_not_answer_is_told_and_may_come_back() -> None:
    screen, fake = new_screen(server("a:80"))
    fake.problem = "the instance has ended"
    screen.look()
    press(screen, "j")
    screen.look()
    assert "the instance has ended" in lines(screen) and shown(screen) == ["a:80"]
    press(screen, "d")
    assert "the instance has ended" in lines(screen) and fake.done == []
    fake.problem = ""
    press(screen, "d")
    assert fake.done == [("web", "a:80", "drain")]


@pytest.mark.parametrize(("sent", "keys"), [
    ("jd", ["j", "d"]), ("\x1b[A\x1bOB", ["up", "down"]), ("\x1b", ["escape"]), ("\x1b[5~\x1b[6~", ["page-up", "page-down"]),
    ("\x1b[1;5Cq", ["q"]), ("w12\x7f\r", ["w", "1", "2", "backspace", "enter"]), ("\x00é", ["é"]), ("\x1b[", []),
])
def test_keys_are_known_by_what_a_terminal_sends(sent: str, keys: list[str]) -> None:
    assert split_keys(sent) == keys


# -- in a terminal -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(segment: Segment) -> Callable[[], tuple[subprocess.Popen[bytes], int, int]]:
    """Starts top on an instance with one server, in a terminal; gives the process and both ends of that."""
    register(segment, Ledger(segment), [PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 0, False)])])

    def start() -> tuple[subprocess.Popen[bytes], int, int]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "prefork_lb", "top", "--master", str(segment.masters()[-1])], stdin=theirs, stdout=theirs,
            stderr=theirs, env=os.environ | {"TERM": "xterm"})
        os.set_blocking(ours, False)
        return process, ours, theirs

    return start


@pytest.mark.parametrize("end", ["q", signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_as_before_whatever_ends_it(
    run: Callable[[], tuple[subprocess.Popen[bytes], int, int]], segment: Segment, end: str | signal.Signals
) -> None:
    process, ours, theirs = run()
    got = b""

    def has(what: bytes) -> bool:
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += os.read(ours, 65536)
        return what in got

    def has_drained() -> bool:
        has(b"")
        return bool(States(segment).admin[0] == Admin.DRAIN)

    try:
        before = termios.tcgetattr(ours)
        wait_until(lambda: has(b"10.0.0.1:80"), lambda: f"the server: {got!r}", 20)
        assert termios.tcgetattr(ours) != before and b"\x1b[?1049h" in got
        os.write(ours, b"d")
        wait_until(has_drained, lambda: f"the server is drained: {got[-200:]!r}", 20)
        if isinstance(end, str):
            os.write(ours, end.encode())
        else:
            process.send_signal(end)
        wait_until(lambda: has(b"\x1b[?1049l") and process.poll() is not None, lambda: f"the end: {got[-200:]!r}", 20)
        assert process.returncode == (0 if end in ("q", signal.SIGINT) else 128 + int(end))
        assert termios.tcgetattr(ours) == before and b"Traceback" not in got
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_top_asks_for_a_terminal() -> None:
    result = CliRunner().invoke(main, ["top"])
    assert result.exit_code == 2 and "status --watch" in result.stderr
