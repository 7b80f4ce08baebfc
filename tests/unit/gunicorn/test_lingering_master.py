"""What gunicorn's master is taught. tests/integration/test_lingering_workers.py has the real one."""
from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter

from prefork_lb.gunicorn.lingering_master import LingeringMaster, let_workers_linger
from prefork_lb.worker.retirement import Order, Retirement


def test_a_master_that_is_none_of_gunicorns_is_left_alone() -> None:
    class Other(Arbiter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.reexec_pid = self.master_pid = 0

    server = Other()
    assert "Other" in let_workers_linger(server, list)
    assert type(server) is Other


def test_a_master_without_what_is_relied_on_is_left_alone() -> None:
    server = Arbiter.__new__(Arbiter)
    assert "reexec_pid" in let_workers_linger(server, list)
    assert type(server) is Arbiter


def test_an_order_reaches_the_other_process_and_is_never_taken_back() -> None:
    retirement = Retirement()
    assert retirement.order is Order.UNWATCHED
    child = os.fork()
    if not child:
        retirement.give(Order.STOP)
        os._exit(0)
    os.waitpid(child, 0)
    assert retirement.order is Order.STOP
    retirement.give(Order.RETIRE)
    assert retirement.order is Order.STOP


class Children:
    """Stands for the kernel: ended children that gunicorn's `reap_workers` finds, one a call of `waitpid`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended: list[int] = []
        self.after_each: Callable[[], None] = lambda: None
        self.master = LingeringMaster.__new__(LingeringMaster)
        self.master.WORKERS, self.master.log = {}, logging.getLogger("test")
        self.master.begin(list)
        monkeypatch.setattr(Arbiter, "reap_workers", lambda master: self._reap(master))
        monkeypatch.setattr(Arbiter, "murder_workers", lambda master: None)

    def _reap(self, master: LingeringMaster) -> None:
        while self.ended:
            master.WORKERS.pop(self.ended.pop(0), None)
            self.after_each()

    def let_linger(self, *pids: int) -> None:
        for pid in pids:
            worker = SimpleNamespace(pid=pid, age=pid, retirement=Retirement())
            worker.retirement.give(Order.RETIRE)
            self.master.WORKERS[pid] = worker
            self.master._retired[pid] = -1e9
        self.master.reap_workers()
        assert not self.master.WORKERS


def test_lingering_workers_that_end_during_each_other_s_sigchld_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn 23 reaps in the handler of SIGCHLD, so reaping comes in the middle of reaping."""
    children = Children(monkeypatch)
    children.let_linger(11, 12)
    children.ended = [11]

    def second_signal() -> None:
        children.after_each = lambda: None
        children.ended = [12]
        children.master.reap_workers()

    children.after_each = second_signal
    children.master.reap_workers()
    children.master.murder_workers()
    assert not children.master._lingering and not children.master.WORKERS


def test_a_lingering_worker_that_ends_while_another_is_reminded_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children(monkeypatch)
    children.let_linger(11, 12)

    def killed(pid: int, sig: int) -> None:
        children.ended = [12]
        # To this thread, which has blocked it. Sent to the process it would go to another thread of the tests, and be handled.
        signal.raise_signal(signal.SIGCHLD)

    monkeypatch.setattr(children.master, "_signal", killed)
    before = signal.signal(signal.SIGCHLD, lambda *_: children.master.reap_workers())
    try:
        children.master._remind()
        children.master._remind()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert list(children.master._lingering) == [11]
