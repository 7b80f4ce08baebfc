"""A thread that waits long for the lock, because its owner is stopped or because many want it."""
from __future__ import annotations

import os
import signal
import threading

import pytest

from prefork_lb.shared import lock as lock_module
from prefork_lb.shared.lock import RobustLock
from tests.support.waiting import wait_until
from tests.unit.shared.guarded import Guarded
from tests.unit.shared.processes import Signals, running


@pytest.mark.parametrize("one_thread", [False, True])
def test_a_taker_that_waits_for_a_stopped_owner_logs_the_owner(
    guarded: Guarded, signals: Signals, caplog: pytest.LogCaptureFixture, one_thread: bool
) -> None:
    guarded.lock._one_thread = one_thread

    def hold() -> None:
        guarded.lock.acquire()
        signals.send()
        os.kill(os.getpid(), signal.SIGSTOP)

    with running(hold) as (owner,):
        signals.wait()
        waiter = threading.Thread(target=guarded.step)
        waiter.start()
        wait_until(lambda: bool(caplog.messages), "the waiter logs")
        owner.kill()
        waiter.join(5)
        assert not waiter.is_alive()
    (message,) = caplog.messages
    assert f"the process {owner.pid} (T (stopped)) holds" in message and "kill -CONT" in message


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STALL_S", "_LOOK_S"):
        monkeypatch.setattr(lock_module, name, 0.01)


@pytest.mark.parametrize("one_thread", [False, True])
def test_a_thread_that_waits_for_a_stopped_owner_calls_its_hook_with_the_owner_at_each_look(
    guarded: Guarded, signals: Signals, short_looks: None, one_thread: bool
) -> None:
    """What is done about the owner is for others to decide: here its end is what the thread waits for."""
    def hold() -> None:
        guarded.lock.acquire()
        signals.send()
        signal.pause()

    told: list[tuple[int, int]] = []

    def stalled(pid: int, looks: int) -> None:
        told.append((pid, looks))
        if looks == 5:
            os.kill(pid, signal.SIGKILL)

    guarded.lock._stalled, guarded.lock._one_thread = stalled, one_thread
    with running(hold) as [owner]:
        signals.wait()
        os.kill(owner.pid, signal.SIGSTOP)
        guarded.step()
        # After the signal another look may come before the lock is free.
        assert told[:5] == [(owner.pid, looks) for looks in range(1, 6)]
    assert guarded.repairs == 1


def test_a_long_wait_for_owners_that_run_is_not_told(
    guarded: Guarded, signals: Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred workers that start at once wait for one another. The message tells the operator to kill one."""
    monkeypatch.setattr(lock_module, "_STALL_S", 0.0)
    looks = 0
    looked = threading.Event()
    original = RobustLock._owner

    def another_at_each_look(lock: RobustLock) -> int:
        nonlocal looks
        looks += 1
        if looks == 5:
            looked.set()
        return original(lock) + looks % 2

    monkeypatch.setattr(lock_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(RobustLock, "_owner", another_at_each_look)
    guarded.lock.acquire()
    waiter = threading.Thread(target=guarded.step)
    waiter.start()
    assert looked.wait(10)
    guarded.lock.release()
    waiter.join(10)
    assert not waiter.is_alive() and not caplog.messages
