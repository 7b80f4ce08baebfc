"""The keeper: the parent of one server that the balancer has started. `drivers.process` runs this file, nobody else needs to.

    python -I -S keeper.py SEGMENT POOL N ADDRESS ORDER PROGRAM ARGUMENT ...

A server must outlive the controller, which may be killed, and must not outlive the instance, however that ends. A child of the
controller could do neither by itself. So each server has a parent of its own, which does nothing but this:

- It looks twice a second whether the instance has a living master, in the header of shared memory. When there is none, it ends
  the server: SIGTERM, and SIGKILL after a while.
- SIGTERM asks it to do the first of these, SIGUSR1 the second.
- It adopts what the server's processes leave behind (PR_SET_CHILD_SUBREAPER), and ends that with the server.
- It passes the server's output on, and keeps the end of it for the log.
- What it knows is in a file in memory (memfd), which the controller has open, and the next controller opens through /proc. There
  are no files to go stale: the command lines in /proc say which servers run.
- When it is killed itself, the kernel kills the server (PR_SET_PDEATHSIG). What a server has forked then sees that its parent is
  gone; the next controller ends those that do not look.

It is a program of its own, without threads, and imports little: 6 MiB, and its fork is safe.
"""
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from os import _exit as leave
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from prefork_lb.shared.identity import is_alive, start_time

CELL = 8
# Cells of the status: pid and start time of the server's process; 1: it has ended; its exit code; the bytes that it has written.
S_PID, S_STARTED, S_ENDED, S_STATUS, S_WRITTEN = range(5)
TAIL_AT = 64
TAIL_BYTES = 4096
STATUS_BYTES = TAIL_AT + TAIL_BYTES

_LOOK_S = 0.5
_PIPE_BUF = 4096  # a pipe that is ready takes so much at once (pipe(7))
_CHUNK_BYTES = 65536
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)
# The master's, which a whole group may get; that of a log whose reader has gone.
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, signal.SIGPIPE)


class Keeper:
    """Starts one server, and ends when it has ended.

    `order` is what the driver has laid down: `segment` and `status` (descriptors), `masters` (place and number of the pairs of
    pid and start time), `stop_timeout`, `log`, and for the server `directory`, `umask`, `limits`, `user` (uid, gid, groups).
    """

    def __init__(self, order: dict[str, Any], command: list[str]) -> None:
        self._order = order
        self._command = command
        self._status: int = order["status"]
        self._output = -1
        self._log = Log(order["log"])
        self._tail = b""
        self._written = 0
        self._server = 0  # pid; 0: it has ended
        self._kill_at = 0.0  # 0: it is not to end

    def run(self) -> None:
        """Start the server, and return when nothing is left of it."""
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for descriptor in (self._order["segment"], self._status):
            os.set_inheritable(descriptor, False)
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        for obeyed in _SIGNALS:
            signal.signal(obeyed, lambda *_: None)
        for ignored in _IGNORED:
            signal.signal(ignored, signal.SIG_IGN)
        self._start()
        look_at = 0.0
        while self._server:
            self._wait(wake, max(0.0, look_at - time.monotonic()))
            for number in _read(wake) or b"":
                self._obey(number)
            self._reap()
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _LOOK_S
                if not self._kill_at and not self._has_masters():
                    self._obey(signal.SIGTERM)
            if self._kill_at and now >= self._kill_at:
                self._obey(signal.SIGUSR1)
        while chunk := _read(self._output):
            self._pass_on(chunk, 0.0)
        self._note(S_ENDED, 1)

    def _start(self) -> None:
        self._output, write_end = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        self._server = os.fork()
        if self._server == 0:
            try:
                self._become_server(keeper, write_end)
            except BaseException as exc:
                os.write(2, f"prefork_lb: {self._command[0]} cannot be started: {exc}\n".encode())
            finally:
                leave(127)
        os.close(write_end)
        os.set_blocking(self._output, False)
        self._note(S_STARTED, start_time(self._server))
        self._note(S_PID, self._server)

    def _become_server(self, keeper: int, output: int) -> None:
        """In the child: be the server. Returns by an exception only."""
        order = self._order
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        # Ignored signals stay ignored in a new program, and the controller ignores some.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for name, value in order["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
        if order["umask"] is not None:
            os.umask(order["umask"])
        if order["user"] is not None:
            user, group, groups = order["user"]
            if os.geteuid() == 0:
                os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
        if order["directory"]:
            os.chdir(order["directory"])
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which takes it back
        if os.getppid() != keeper:  # it was killed before that
            leave(127)
        os.execvp(self._command[0], self._command)

    def _wait(self, wake: int, timeout_s: float) -> None:
        """Until there is a signal or output, but no longer than that."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self._output >= 0:
            poll.register(self._output, select.POLLIN)
        for descriptor, _ in poll.poll(timeout_s * 1000 + 1):
            if descriptor == self._output:
                chunk = _read(self._output)
                if chunk:
                    self._pass_on(chunk, _LOOK_S)
                elif chunk is not None:  # closed by all
                    os.close(self._output)
                    self._output = -1

    def _obey(self, number: int) -> None:
        if number == signal.SIGTERM and self._server:
            if not self._kill_at:
                self._kill_at = time.monotonic() + self._order["stop_timeout"]
            os.kill(self._server, signal.SIGTERM)
        elif number == signal.SIGUSR1:
            self._kill_all()

    def _reap(self) -> None:
        """Note the server's end. What it has left behind ends, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._server:
                self._note(S_STATUS, os.waitstatus_to_exitcode(status))
                self._server = 0
                self._kill_all()
                return

    def _kill_all(self) -> None:
        """End all processes of the server at once. Returns when none is left."""
        while True:
            for pid in _children():
                with contextlib.suppress(PermissionError):  # a program that has become another user
                    os.kill(pid, signal.SIGKILL)
            try:
                pid, status = os.waitpid(-1, 0)  # the children of one that has ended are ours by then
            except ChildProcessError:
                return
            if pid == self._server:
                self._note(S_STATUS, os.waitstatus_to_exitcode(status))
                self._server = 0

    def _has_masters(self) -> bool:
        place, count = self._order["masters"]
        cells = memoryview(os.pread(self._order["segment"], 2 * CELL * count, place)).cast("q")
        return any(is_alive(cells[i], cells[i + 1]) for i in range(0, len(cells), 2))

    def _pass_on(self, chunk: bytes, patience_s: float) -> None:
        self._written += len(chunk)
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        os.pwrite(self._status, self._tail, TAIL_AT)
        self._note(S_WRITTEN, self._written)
        self._log.write(chunk, patience_s)

    def _note(self, cell: int, value: int) -> None:
        os.pwrite(self._status, value.to_bytes(CELL, sys.byteorder, signed=True), cell * CELL)


class Log:
    """Where the output goes: a file, which is opened again when it was moved away; without a name, to the keeper's own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._looked_at = 0.0
        self._is_told = False  # that the file cannot be opened

    def write(self, chunk: bytes, patience_s: float) -> None:
        """What cannot be written within that time is lost: a server must not stand still for its log."""
        _write(self._open() if self._path else 1, chunk, patience_s)

    def _open(self) -> int:
        now = time.monotonic()
        if now - self._looked_at < 1.0 and self._descriptor >= 0:
            return self._descriptor
        self._looked_at = now
        try:
            if self._descriptor >= 0 and os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                return self._descriptor
        except OSError:
            pass
        if self._descriptor >= 0:
            os.close(self._descriptor)
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._is_told = False
        except OSError as exc:
            self._descriptor = -1
            if not self._is_told:
                self._is_told = True
                _write(2, f"prefork_lb: what a server writes is lost: {exc}\n".encode(), 0.0)
        return self._descriptor


def prctl(option: int, value: int) -> None:
    """prctl(2), for this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _read(descriptor: int) -> bytes | None:
    """What there is; None: nothing now; empty: the end."""
    try:
        return os.read(descriptor, _CHUNK_BYTES) if descriptor >= 0 else b""
    except BlockingIOError:
        return None


def _write(descriptor: int, chunk: bytes, patience_s: float) -> None:
    """Write as much as can be within that time. A negative descriptor is none."""
    deadline = time.monotonic() + patience_s
    while chunk and descriptor >= 0:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return
        try:
            chunk = chunk[os.write(descriptor, chunk[:_PIPE_BUF]):]
        except OSError:
            return


def _children() -> list[int]:
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return [int(child) for child in file.read().split()]


if __name__ == "__main__":
    Keeper(json.loads(sys.argv[5]), sys.argv[6:]).run()
