"""gunicorn's master, changed so that replaced workers may linger: they finish their exchanges beside the new workers.

Facts about gunicorn's Arbiter, from version 23 to 27:

- `WORKERS` holds every child by pid until it is reaped. A worker that was told to end counts as one of `num_workers` as
  long as it runs: while it serves a tunnel, a new worker that dies is not replaced.
- From version 25 on `reload()` (SIGHUP) waits for all old workers, for up to `graceful_timeout`. Meanwhile the master
  replaces no worker and handles no signal, SIGQUIT included.
- `manage_workers()` ends surplus workers by `kill_worker(pid, SIGTERM)`. `stop()` ends all of them by
  `kill_workers(SIGTERM)` or, for a quick end, `kill_workers(SIGQUIT)`; it waits for `graceful_timeout` while `WORKERS` has
  any, and then calls `kill_workers(SIGKILL)`.
- A worker starts with the master's handlers, which put a signal into a queue that the worker never reads. `stop()`
  sends its signal once.
- `reap_workers()` and `manage_workers()` are called at least once a second; in `reload()`, only the former is. Version 23
  calls `reap_workers()` in the handler of SIGCHLD and nowhere else. So it may come between any two instructions, also in the
  middle of another `reap_workers()`, and its `stop()` sees the end of a child only.

So the master takes a replaced worker out of `WORKERS` after a moment. The worker stays the master's child and *lingers*. The
master puts lingering workers back into `WORKERS` only while gunicorn's code must see all workers: to reap them, to kill a
frozen one, to reopen logs. When the instance stops, they go back for good, so that `stop()` waits for them and ends them.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prefork_lb.gunicorn.internals import Arbiter
from prefork_lb.shared.identity import is_alive, start_time
from prefork_lb.worker.retirement import Order, Retirement

# Most workers end within this time; those that still have clients linger.
_GRACE_S = 1.0
_LOOK_EVERY_S = 0.05
_LEAST_LINGERING = 4
_CAUGHT = re.compile(rb"^SigCgt:\s+([0-9a-f]+)", re.MULTILINE)  # proc(5)

_ATTRIBUTES = ("WORKERS", "reexec_pid", "master_pid", "manage_workers", "reap_workers", "murder_workers", "kill_workers",
               "kill_worker")


class Adopted(Protocol):
    """A lingering worker of an earlier master (USR2): the instance's, but no child of this master."""

    @property
    def pid(self) -> int: ...

    def is_running(self) -> bool: ...


FindAdopted = Callable[[], Sequence[Adopted]]


class LingeringMaster(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """An Arbiter whose replaced workers linger. An Arbiter that runs becomes one by `let_workers_linger`."""

    def begin(self, find_adopted: FindAdopted) -> None:
        """Set up what this class adds."""
        self._find_adopted = find_adopted
        self._retired: dict[int, float] = {}  # when each worker was first told to end, by pid
        self._lingering: dict[int, Any] = {}  # gunicorn's worker objects, by pid
        self._stopping: set[int] = set()  # workers that must not linger any more
        self._resent_at = 0.0
        self._shown = 0  # how deep `_all_workers` is nested at the moment

    # -- what gunicorn calls -----------------------------------------------------------------------------------

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a signal to a worker. SIGTERM retires it, unless the instance stops."""
        if sig == signal.SIGTERM and pid not in self._stopping and (worker := self.WORKERS.get(pid)) is not None:
            self._retired.setdefault(pid, time.monotonic())
            _give(worker, Order.RETIRE)
        super().kill_worker(pid, sig)

    def manage_workers(self) -> None:
        """Replace workers that ended, end surplus ones."""
        self._let_go()
        super().manage_workers()
        for worker in list(self.WORKERS.values()):
            _give(worker, Order.SERVE)
        self._remind()
        self._end_surplus()

    def reap_workers(self) -> None:
        """Take note of children that ended."""
        self._let_go()
        with self._all_workers():
            super().reap_workers()
        for pid, worker in list(self.WORKERS.items()):
            if isinstance(worker, _AdoptedWorker) and not worker.is_running():
                self.WORKERS.pop(pid, None)

    def murder_workers(self) -> None:
        """Kill workers that give no sign of life."""
        with self._all_workers():
            super().murder_workers()

    def kill_workers(self, sig: int) -> None:
        """Send a signal to all workers: for the end of all (SIGTERM, SIGQUIT, SIGKILL), or to reopen logs (SIGUSR1)."""
        if sig == signal.SIGUSR1:
            with self._all_workers():
                super().kill_workers(sig)
            for adopted in self._find_adopted():
                super().kill_worker(adopted.pid, sig)
        elif sig == signal.SIGTERM and self._has_another_master():
            # An upgrade: the other master's workers replace this one's. When this master has gone, only a ProxyWorker can still
            # be told to stop. So workers of other classes do not linger.
            self._stopping.update(pid for pid, worker in list(self.WORKERS.items()) if _retirement(worker) is None)
            self._repeat_to_starting(sig)
            super().kill_workers(sig)
            self._wait_for_grace()
        else:
            if sig != signal.SIGKILL:
                self._take_back()
                self._repeat_to_starting(sig)
            super().kill_workers(sig)

    def _repeat_to_starting(self, sig: int) -> None:
        """Send the signal of a stop once more to workers that are starting, as soon as they can hear it.

        Else the stop would wait for such a worker for the whole of `graceful_timeout`.
        """
        starting = {pid: start_time(pid) for pid in list(self.WORKERS) if not _takes_signals(pid)}
        if starting:
            # A thread: `stop()` of version 23 calls nothing of ours until a worker ends.
            threading.Thread(target=_tell_when_they_hear, args=(starting, sig), daemon=True).start()

    # -- who lingers -------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Take workers out of `WORKERS` that retired, by the master's order or by themselves, and still run after the grace."""
        with _without_sigchld():
            self._let_go_now(time.monotonic())

    def _let_go_now(self, now: float) -> None:
        for pid, worker in list(self.WORKERS.items()):
            if self._shown:
                return
            if pid in self._stopping:
                continue
            if _order(worker) is Order.RETIRE and pid not in self._retired:  # the worker retired by itself: max_requests
                self._retired[pid] = now
            if now - self._retired.get(pid, now) >= _GRACE_S:
                self._lingering[pid] = worker
                self.WORKERS.pop(pid, None)
                if _retirement(worker) is None:  # a ProxyWorker logs this itself
                    self.log.info("Worker (pid:%s) was replaced and lingers: it goes on with its requests", pid)

    @contextlib.contextmanager
    def _all_workers(self) -> Iterator[None]:
        """Put the lingering workers into `WORKERS` for a while. Those that gunicorn removes from it have ended."""
        with _without_sigchld():
            self._shown += 1
            if self._shown == 1:  # else gunicorn may have removed some already
                self.WORKERS.update(self._lingering)
        try:
            yield
        finally:
            with _without_sigchld():
                if self._shown == 1:
                    for pid in list(self._lingering):
                        if self.WORKERS.pop(pid, None) is None:
                            for noted in (self._lingering, self._retired):
                                noted.pop(pid, None)
                            self._stopping.discard(pid)
                self._shown -= 1

    def _remind(self) -> None:
        """Repeat SIGTERM: a worker that was still starting may have lost the first one. gunicorn does so for surplus workers."""
        now = time.monotonic()
        if now - self._resent_at >= 1.0:
            self._resent_at = now
            with _without_sigchld():
                for pid in list(self._retired):
                    if pid in self._lingering:
                        self._signal(pid, signal.SIGTERM)
                    elif pid not in self.WORKERS:
                        del self._retired[pid]

    def _end_surplus(self) -> None:
        """Limit the number of lingering workers, for each keeps its memory and its row. The oldest end first."""
        with _without_sigchld():
            most = max(_LEAST_LINGERING, 2 * self.num_workers)
            surplus = len(self._lingering) - most
            for pid, worker in sorted(self._lingering.items(), key=lambda item: item[1].age)[:max(0, surplus)]:
                if pid not in self._stopping:
                    self.log.warning("Worker (pid:%s) has to end: more than %d workers linger", pid, most)
                    self._stopping.add(pid)
                    _give(worker, Order.STOP)
                    self._signal(pid, signal.SIGTERM)

    def _signal(self, pid: int, sig: int) -> None:
        super().kill_worker(pid, sig)

    # -- the end of this master --------------------------------------------------------------------------------

    def _has_another_master(self) -> bool:
        """Whether the instance goes on without this master: the new one of an upgrade, or the old one if it is given up."""
        return bool(self.reexec_pid or (self.master_pid and self.master_pid == os.getppid()))

    def _wait_for_grace(self) -> None:
        until = time.monotonic() + _GRACE_S + _LOOK_EVERY_S
        while self.WORKERS and time.monotonic() < until:
            self.reap_workers()
            time.sleep(_LOOK_EVERY_S)

    def _take_back(self) -> None:
        """The instance stops: put all lingering workers back into `WORKERS`, those of earlier masters included."""
        with _without_sigchld():
            self.WORKERS.update(self._lingering)
            self._lingering.clear()
            self._retired.clear()
        others = [adopted for adopted in self._find_adopted() if adopted.pid not in self.WORKERS]
        self.WORKERS.update((adopted.pid, _AdoptedWorker(adopted)) for adopted in others)
        if others:
            threading.Thread(target=_tell_end, args=(others,), daemon=True).start()
        self._stopping.update(self.WORKERS)
        for worker in list(self.WORKERS.values()):
            _give(worker, Order.STOP)


def _tell_when_they_hear(starting: Mapping[int, int], sig: int) -> None:
    """Send these workers a signal, by pid and start time, as soon as they have handlers of their own."""
    left = dict(starting)
    while left:
        time.sleep(_LOOK_EVERY_S)
        for pid, start in list(left.items()):
            if not is_alive(pid, start):
                del left[pid]
            elif _takes_signals(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
                del left[pid]


def _takes_signals(pid: int) -> bool:
    """Whether the process has the handlers of a worker. That of SIGABRT is the last one to be set, and no master has it."""
    try:
        caught = _CAUGHT.search(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return True  # it has ended
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGABRT - 1) & 1)


@contextlib.contextmanager
def _without_sigchld() -> Iterator[None]:
    """Put the handler of SIGCHLD off: what the block changes, `reap_workers` changes too. The block must not fork."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell_end(workers: Sequence[Adopted]) -> None:
    """Tell the master by SIGCHLD when these workers have ended. The kernel does so for the ends of children only."""
    while any(worker.is_running() for worker in workers):
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGCHLD)


class _AdoptedWorker:
    """A worker object, as gunicorn needs it, for a worker that another master started."""

    age = 0
    aborted = False

    def __init__(self, adopted: Adopted) -> None:
        self.pid = adopted.pid
        self.is_running = adopted.is_running
        self.tmp = self

    def last_update(self) -> float:
        """Always now: this master cannot see the worker's heartbeat, so it must not take the worker for frozen."""
        return time.monotonic()

    def close(self) -> None:
        """Do nothing. gunicorn calls this to close a heartbeat file, and there is none."""


def let_workers_linger(server: Any, find_adopted: FindAdopted) -> str:
    """Turn gunicorn's running master into a LingeringMaster. Return why that is impossible; "": it was done."""
    missing = [name for name in _ATTRIBUTES if not hasattr(server, name)]
    if missing or type(server) is not Arbiter:
        return f"gunicorn's master is not as it was known: {', '.join(missing) or type(server).__name__}"
    server.__class__ = LingeringMaster
    server.begin(find_adopted)
    return ""


def _retirement(worker: Any) -> Retirement | None:
    found = getattr(worker, "retirement", None)  # gunicorn's own worker classes have none
    return found if isinstance(found, Retirement) else None


def _order(worker: Any) -> Order:
    retirement = _retirement(worker)
    return retirement.order if retirement is not None else Order.UNWATCHED


def _give(worker: Any, order: Order) -> None:
    retirement = _retirement(worker)
    if retirement is not None:
        retirement.give(order)
