"""Who a process is."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from prefork_lb.shared.identity import is_alive, myself, start_time
from tests.unit.shared.processes import Child, Master, Signals, running


def test_a_running_process_is_alive_by_pid_and_start_time(master: Master) -> None:
    assert start_time(master.pid) > 0
    assert is_alive(master.pid, start_time(master.pid))
    assert not is_alive(master.pid, start_time(master.pid) - 1), "another one had this pid before"


def test_a_dead_process_is_not_alive_whatever_start_time_was_noted(master: Master) -> None:
    started = start_time(master.pid)
    master.kill()
    assert start_time(master.pid) == 0
    assert not is_alive(master.pid, started)
    # Noted by somebody who looked too late: it must not count as alive for ever.
    assert not is_alive(master.pid, 0)


def test_no_process_is_alive_under_pid_zero() -> None:
    assert not is_alive(0, 0)
    assert not is_alive(-1, 0)


def test_a_zombie_is_dead(signals: Signals) -> None:
    with running(lambda: (signals.send(), signal.pause())) as (child,):
        signals.wait()
        started = start_time(child.pid)
        assert is_alive(child.pid, started)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(child.pid, started)


def test_myself_is_this_process_and_differs_after_a_fork() -> None:
    pid, started = myself()
    assert pid == os.getpid() and is_alive(pid, started)

    def check() -> None:
        mine = myself()
        assert mine != (pid, started) and is_alive(*mine)

    assert Child(check).wait() == 0


@pytest.mark.parametrize("name", ["a) R 1 2 3", "()", "x y z", ") )"])
def test_a_command_name_that_looks_like_the_rest_of_the_line_does_not_confuse(
    name: str, new_signals: Callable[[], Signals]
) -> None:
    ready = new_signals()

    def rename() -> None:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
        ready.send()
        signal.pause()

    with running(rename) as (child,):
        ready.wait()
        # Started after us, and on the same clock.
        assert 0 <= start_time(child.pid) - start_time(os.getpid()) < 10**7
        assert is_alive(child.pid, start_time(child.pid))
