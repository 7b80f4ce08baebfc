"""The robust lock: nobody waits for a dead owner, nobody gets in beside a living one."""
from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from prefork_lb.errors import InvariantError
from prefork_lb.shared import lock as lock_module
from prefork_lb.shared.lock import MUTEX_BYTES, LockUnavailable, RobustLock, initialise
from tests.unit.shared.guarded import SIZE, Guarded
from tests.unit.shared.processes import Child, Signals, running


def die_inside(guarded: Guarded) -> None:
    guarded.lock.acquire()
    guarded.pair[0] += 1
    os.kill(os.getpid(), signal.SIGKILL)


def test_after_a_kill_inside_the_next_taker_repairs_and_has_it(guarded: Guarded) -> None:
    for kill in range(1, 51):
        assert Child(lambda: die_inside(guarded)).wait() == -signal.SIGKILL
        guarded.step()
        assert guarded.repairs == kill
        guarded.step()  # and now it is an ordinary lock again
        assert guarded.repairs == kill
    assert list(guarded.pair) == [150, 150]


def test_a_taker_that_waits_gets_it_when_the_owner_is_killed(guarded: Guarded, signals: Signals) -> None:
    def hold() -> None:
        guarded.lock.acquire()
        guarded.pair[0] += 1
        signals.send()
        signal.pause()

    with running(hold) as (owner,):
        signals.wait()
        waiter = threading.Thread(target=guarded.step)
        waiter.start()
        waiter.join(0.05)
        assert waiter.is_alive(), "it got in beside a living owner"
        owner.kill()
        waiter.join(20)
        assert not waiter.is_alive()
    assert guarded.repairs == 1 and list(guarded.pair) == [2, 2]


def test_kills_at_random_moments_leave_no_step_half_done_and_nobody_waiting(guarded: Guarded) -> None:
    rng = random.Random(1)

    def work() -> None:
        while True:
            guarded.step()

    with running(work, 2) as workers:
        for _ in range(60):
            before = guarded.pair[0]
            time.sleep(rng.uniform(0, 0.004))  # the moment of the kill, not a wait for something
            workers.pop(rng.randrange(2)).kill()
            workers.append(Child(work))
            guarded.step()
            assert guarded.pair[0] > before
    guarded.step()
    one, other = guarded.pair
    assert one == other


def test_processes_exclude_one_another(guarded: Guarded) -> None:
    steps = 3000

    def work() -> None:
        for _ in range(steps):
            guarded.step()

    with running(work, 3) as workers:
        assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert list(guarded.pair) == [3 * steps, 3 * steps]


def test_threads_of_one_process_exclude_one_another(guarded: Guarded) -> None:
    steps, failures = 1500, []

    def work() -> None:
        try:
            for _ in range(steps):
                guarded.step()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(guarded.pair) == [4 * steps, 4 * steps]
    assert guarded.repairs == 0


def test_a_thread_that_waits_lets_the_owner_go_on(guarded: Guarded) -> None:
    """The waiter must not keep the GIL from an owner in the same process."""
    inside, go_on = threading.Event(), threading.Event()

    def own() -> None:
        guarded.lock.acquire()
        inside.set()
        assert go_on.wait(5)
        guarded.lock.release()

    owner, waiter = threading.Thread(target=own), threading.Thread(target=guarded.step)
    owner.start()
    assert inside.wait(5)
    waiter.start()
    go_on.set()
    owner.join(5)
    waiter.join(5)
    assert not owner.is_alive() and not waiter.is_alive()
    assert list(guarded.pair) == [1, 1]


def test_a_thread_that_ends_inside_hands_it_on(guarded: Guarded) -> None:
    def leave() -> None:
        guarded.lock.acquire()
        guarded.pair[0] += 1

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    guarded.step()
    assert guarded.repairs == 1 and list(guarded.pair) == [2, 2]


def test_a_section_broken_off_by_an_exception_is_repaired_at_the_next_take(guarded: Guarded) -> None:
    """As when a signal handler raises between `acquire` and the `try` after it: the thread holds the lock and does not know."""
    guarded.lock.acquire()
    guarded.pair[0] += 1
    guarded.step()
    assert guarded.repairs == 1 and list(guarded.pair) == [2, 2]
    other = Child(guarded.step)
    assert other.wait() == 0, "it must be free for others"
    assert list(guarded.pair) == [3, 3]


def interrupted_at_random_moments(guarded: Guarded) -> None:
    """A timer's handler raises at random moments, inside sections too."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    sys.settrace(None)  # a tool that measures coverage has locks of its own, which must not be broken off
    rng = random.Random(2)
    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(150):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(20e-6, 400e-6))
            while True:
                guarded.lock.acquire()
                try:
                    guarded.pair[0] += 1
                    guarded.pair[1] += 1
                finally:
                    guarded.lock.release()
        except Interrupted:
            pass
    guarded.lock.acquire()
    guarded.lock.release()
    # Another process gets it while this one still lives.
    assert Child(lambda: (guarded.lock.acquire(), guarded.lock.release())).wait() == 0


def test_signal_handlers_that_raise_anywhere_leave_a_lock_that_works(guarded: Guarded) -> None:
    assert Child(lambda: interrupted_at_random_moments(guarded)).wait() == 0
    assert guarded.pair[0] > 1000


def test_a_repair_that_is_broken_off_is_made_again_and_the_lock_stays_usable(guarded: Guarded) -> None:
    """An exception in the repair must not make the mutex unusable for everybody for ever (ENOTRECOVERABLE)."""
    Child(lambda: die_inside(guarded)).wait()

    class Broken(Exception):
        pass

    def broken() -> None:
        raise Broken

    repair, guarded.lock._repair = guarded.lock._repair, broken
    with pytest.raises(Broken):
        guarded.lock.acquire()
    guarded.lock._repair = repair
    guarded.step()
    assert guarded.repairs == 1
    guarded.step()
    assert Child(guarded.step).wait() == 0
    assert list(guarded.pair) == [4, 4]


def test_release_without_the_lock_is_an_invariant_error(guarded: Guarded) -> None:
    with pytest.raises(InvariantError, match="pthread_mutex_unlock"):
        guarded.lock.release()


def test_a_closed_lock_raises_and_does_not_crash(guarded: Guarded) -> None:
    """A thread that is late must not bring the process down with a null pointer."""
    memory = mmap.mmap(-1, SIZE)
    view = memoryview(memory)
    initialise(view, 0)
    closed = RobustLock(view, 0, lambda: None)
    closed.close()
    view.release()
    memory.close()  # nothing points into it any more

    def use() -> None:
        for call in (closed.acquire, closed.release):
            with pytest.raises(InvariantError, match="closed"):
                call()

    assert Child(use).wait() == 0


def test_a_mutex_that_is_none_is_an_invariant_error(guarded: Guarded) -> None:
    """Every other answer of the library is an error, not a success."""
    with mmap.mmap(-1, SIZE) as memory, memoryview(memory) as view:
        view[:MUTEX_BYTES] = b"\xff" * MUTEX_BYTES
        broken = RobustLock(view, 0, lambda: pytest.fail("nothing to repair"))
        with pytest.raises(InvariantError, match="pthread_mutex_lock: Invalid argument"):
            broken.acquire()
        broken.close()


@pytest.fixture
def load_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_loaded", None)


def test_a_system_without_robust_mutexes_is_refused_with_the_way_out(
    load_again: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has none; it cannot be had here."""
    monkeypatch.setattr(ctypes, "PyDLL", lambda name: SimpleNamespace())
    with mmap.mmap(-1, SIZE) as memory, memoryview(memory) as view, pytest.raises(LockUnavailable, match="run it on Linux"):
        initialise(view, 0)


def test_a_failing_initialisation_names_the_call(load_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def ok(*_: object) -> int:
        return 0

    def pthread_mutexattr_setrobust(*_: object) -> int:
        return errno.ENOTSUP

    calls: dict[str, Callable[..., int]] = {
        "pthread_mutexattr_init": ok, "pthread_mutexattr_setpshared": ok, "pthread_mutexattr_settype": ok,
        "pthread_mutex_init": ok, "pthread_mutexattr_setrobust": pthread_mutexattr_setrobust,
    }
    monkeypatch.setattr(ctypes, "PyDLL", lambda name: SimpleNamespace(**calls))
    with pytest.raises(LockUnavailable, match="pthread_mutexattr_setrobust: Operation not supported"):
        initialise(memoryview(bytearray(SIZE)), 0)
