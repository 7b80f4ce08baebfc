"""`prefork-lb status` on instances in real shared memory: all of it arrives, and what stands still is told."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from typing import Any

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.discovered import Discovered, DiscoveryState, write_discovered
from prefork_lb.shared.identity import myself
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check
from tests.unit.shared.processes import Master

POOL = "a-pool-with-a-rather-long-name-for-the-accounts-department"
LONG = "application-server-0001.datacentre-north.internal.example.org:18080"
UNIX = "unix:/run/some/folder/with/a/long/name/" + "x" * 40 + ".sock"
BACKUP = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"
NOTE = "status 503, expected 200-399"


@pytest.fixture
def states(segment: Segment) -> States:
    ledger = Ledger(segment)
    servers = [ServerEntry(LONG, 1, 0, False), ServerEntry(UNIX, 1, 7, False), ServerEntry(BACKUP, 1, 0, True)]
    slots = register(segment, ledger, [PoolEntry(POOL, servers, 50, 9)])[POOL].slots
    states = States(segment)
    with ledger.locked():
        states.set_check(slots[0], Check.DOWN, NOTE)
    states.checked[slots[0]] = now_ms() - 42 * 60_000 - 10_000  # some time goes by until it is shown
    with segment.cells[segment.layout.row_array(0, at.A_REQUESTS)] as requests:
        requests[slots[1]] = 123_456_789_012
    return states


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefork_lb", "status", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "TERM")} | more


def in_a_pipe(**more: str) -> str:
    return subprocess.run(command(), env=environment(**more), capture_output=True, text=True, check=True, timeout=60).stdout


def on_a_terminal(columns: int, kind: str) -> str:
    """What a terminal of this width gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command(), env=environment(TERM=kind), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        got = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while piece := os.read(ours, 65536):
                got += piece
        os.close(ours)
        assert process.wait(60) == 0
    return got.decode()


def is_whole(shown: str) -> bool:
    words = (*NOTE.split(), "42", "123456789012", POOL, LONG, UNIX, BACKUP, "(backup)", "failures", "requests")
    return "…" not in shown and all(word in shown for word in words)


@pytest.mark.parametrize("more", [{}, {"COLUMNS": "20"}, {"TERM": "dumb"}, {"COLUMNS": "20", "TERM": "xterm"}], ids=str)
def test_in_a_pipe_every_server_is_one_line_and_nothing_is_cut(states: States, more: dict[str, str]) -> None:
    shown = in_a_pipe(**more)
    assert is_whole(shown)
    [line] = [line for line in shown.splitlines() if LONG in line]
    assert POOL in line and f"down: {NOTE}" in line and "42 min ago" in line
    assert f"pool {POOL}: 0 in flight of 50, 0 waiting of 9, 0 refused" in shown.splitlines()


@pytest.mark.parametrize(("columns", "kind"), [(10, "xterm"), (80, "xterm"), (500, "xterm"), (80, "dumb")])
def test_on_a_terminal_of_any_width_nothing_is_cut(states: States, columns: int, kind: str) -> None:
    assert is_whole(on_a_terminal(columns, kind))


def shown_json(segment: Segment) -> dict[str, Any]:
    done = subprocess.run(command("--json"), env=environment(), capture_output=True, text=True, check=True, timeout=60)
    [found] = [each for each in json.loads(done.stdout)["instances"] if each["master"] == segment.masters()[-1]]
    assert isinstance(found, dict)
    return found


def ages(segment: Segment) -> dict[str, float | None]:
    """How long ago each server was checked."""
    return {server["address"]: server["checked_s"] for pool in shown_json(segment)["pools"] for server in pool["servers"]}


def test_the_age_of_a_check_is_shown(segment: Segment, states: States) -> None:
    found = ages(segment)
    assert 2520 <= (found[LONG] or 0) < 2600 and found[UNIX] is found[BACKUP] is None
    with Ledger(segment, takes_row=False).locked():  # a reload whose configuration has no checks
        for slot, used in enumerate(states.used):
            if used:
                states.forget_check(slot)
    assert set(ages(segment).values()) == {None}


def test_a_controller_that_is_missing_or_frozen_is_told(segment: Segment, states: States, master: Master) -> None:
    mine = f"gunicorn master {master.pid}, "

    def said() -> str:
        """What stands between our instance and the next one."""
        return in_a_pipe().partition(mine)[2].partition("gunicorn master")[0]

    assert "no controller is at work: servers are not checked" in said()
    assert shown_json(segment)["controller"] is None
    segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = myself()
    segment.cells[at.H_BEAT] = now_ms() - 77_000
    assert f"the controller (pid {os.getpid()}) has not moved for " in said()  # how long a busy machine takes is told below
    assert 77 <= shown_json(segment)["controller"]["silent_s"] < 150
    segment.cells[at.H_BEAT] = now_ms() + 60_000  # however slow this test is
    assert "controller" not in said()


def test_workers_without_the_compiled_modules_are_told(segment: Segment, states: States, master: Master) -> None:
    row = segment.layout.row(0)  # the one of this process

    def said() -> str:
        [line] = [line for line in in_a_pipe().partition(f"gunicorn master {master.pid}, ")[2].splitlines()
                  if line.startswith("compiled modules:")][:1]
        return line

    for is_compiled in (1, 0):
        segment.cells[row + at.R_COMPILED] = is_compiled
        assert [worker["compiled"] for worker in shown_json(segment)["workers"]] == [bool(is_compiled)]
        assert said().startswith("compiled modules: in use" if is_compiled else "compiled modules: not in use, so a request ")
    other = segment.layout.row(1)
    segment.cells[other + at.R_COMPILED], segment.cells[other + at.R_START], segment.cells[other] = 1, myself()[1], os.getpid()
    assert said().startswith(f"compiled modules: not in use by 1 worker ({os.getpid()}), so ")


def test_where_servers_are_found_is_told_with_how_it_goes(segment: Segment) -> None:
    ledger = Ledger(segment)
    register(segment, ledger, [PoolEntry("web", [], may_be_empty=True)])
    publish(segment, ledger, b'{"pools": {"web": {"discovery": {"dns": "app.internal:80"}}}}')
    for found, expected in (
            (Discovered(DiscoveryState.WAITING, 0.0, 0, ""), "no list yet"),
            (Discovered(DiscoveryState.GOOD, time.time() - 30, 1, "no room"), r"1 server, good \d+ s ago; problem: no room"),
            (Discovered(DiscoveryState.FAILING, time.time() - 300, 3, "no name"), r"3 servers, good \d min ago; fails: no name")):
        with ledger.locked():
            write_discovered(segment, 0, found)
        assert re.search(rf"^pool web discovers \(dns app.internal:80\): {expected}$", in_a_pipe(), re.MULTILINE)
