"""Servers that are processes of this host. Each has a keeper, see `scaling.keeper`; the driver talks to the keepers."""
from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prefork_lb.scaling import keeper as at
from prefork_lb.scaling.addresses import Addresses
from prefork_lb.scaling.driver import SHOWN_CHARACTERS, Ended, Running, StartFailed
from prefork_lb.scaling.keepers import KEEPER, PYTHON, Found, keepers
from prefork_lb.scaling.tree import cpu_of, end_session, memory_of, processes_below
from prefork_lb.shared.identity import start_time

# Of the balancer alone: gunicorn's and systemd's sockets, the configuration.
_NOT_INHERITED = ("GUNICORN_", "LISTEN_", "PREFORK_LB_", "WATCHDOG_", "NOTIFY_SOCKET", "SERVER_SOFTWARE")


class InstanceSegment(NamedTuple):
    """The instance whose servers these are."""

    segment: str  # name
    descriptor: int  # of the segment's file
    masters: tuple[int, int]  # where in the file its masters are listed, and how many pairs of pid and start time


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How a server is started. `command`, `environment` and `log` may have {address}, {port} and {n}."""

    command: Sequence[str]
    addresses: Addresses
    user: str = ""  # empty: this process' own; likewise `group`
    group: str = ""
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)  # by the names of setrlimit(2) without RLIMIT_, in small letters
    log: str = ""  # a file; empty: where this process' own output goes
    stop_timeout_s: float = 30.0  # from SIGTERM to SIGKILL when the instance ends


class ProcessDriver:
    """See `driver.Driver`."""

    def __init__(self, instance: InstanceSegment, pool: str, settings: ProcessSettings) -> None:
        self._instance = instance
        self._pool = pool
        self._settings = settings
        self._kept: dict[int, _Kept] = {}

    def use(self, settings: ProcessSettings) -> None:
        """Start servers so from now on."""
        self._settings = settings

    def start(self, n: int) -> None:
        settings = self._settings
        # Of all pools: the check of a server that starts would find the one that had the address before.
        address = settings.addresses.free(n, {found.address for found in keepers(self._instance.segment)})
        if address is None:
            raise StartFailed("all of its addresses are in use")
        user = _user(settings)
        words = {"{address}": str(address), "{port}": str(address.port or ""), "{n}": str(n)}
        status = os.memfd_create("prefork_lb server")
        try:
            os.ftruncate(status, at.STATUS_BYTES)
            # Opened anew: the descriptor of the segment carries the controller's lock, which must not outlive the controller.
            with open(f"/proc/self/fd/{self._instance.descriptor}", "rb", buffering=0) as segment:
                order = {"segment": segment.fileno(), "masters": self._instance.masters, "status": status,
                         "stop_timeout": settings.stop_timeout_s, "log": _filled(settings.log, words),
                         "directory": settings.directory, "umask": settings.umask, "limits": dict(settings.limits), "user": user}
                arguments = [*PYTHON, str(KEEPER), self._instance.segment, self._pool, str(n), str(address), json.dumps(order),
                             *(_filled(word, words) for word in settings.command)]
                process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True,
                                           pass_fds=[segment.fileno(), status], env=_environment(settings, words))
        except (OSError, ValueError) as exc:  # ValueError: a zero byte in a word
            os.close(status)
            raise StartFailed(f"its keeper cannot be started: {exc}") from exc
        started = start_time(process.pid)
        self._kept[n] = _Kept(str(address), process.pid, os.pidfd_open(process.pid), status, _since(started), process)

    def address(self, n: int) -> str:
        return self._kept[n].address

    def last_lines(self, n: int) -> str:
        return self._kept[n].last_lines()

    def memory(self, n: int) -> int | None:
        return memory_of(processes_below(self._kept[n].keeper))

    def cpu_s(self, n: int) -> float | None:
        return cpu_of(processes_below(self._kept[n].keeper))

    def stop(self, n: int, hard: bool) -> None:
        self._kept[n].signal(signal.SIGUSR1 if hard else signal.SIGTERM)

    def ended(self) -> list[Ended]:
        found = [n for n, kept in self._kept.items() if kept.is_over()]
        return [self._note_end(n, self._kept.pop(n)) for n in found]

    def _note_end(self, n: int, kept: _Kept) -> Ended:
        ended = Ended(n, kept.why(), kept.last_lines())
        if not kept.cell(at.S_ENDED) and (server := kept.cell(at.S_PID)):
            # The kernel has killed the server, but not the processes that it had started.
            end_session(server, kept.cell(at.S_STARTED))
        kept.close()
        return ended

    def adopt(self) -> dict[int, Running]:
        running = {}
        for found in keepers(self._instance.segment):
            if found.pool == self._pool and (kept := _taken_up(found)):
                self._kept[found.n] = kept
                running[found.n] = Running(kept.address, kept.since, found.stop_timeout_s)
        return running

    def close(self) -> None:
        for n in self._kept:
            self.stop(n, hard=False)  # the keepers would see it by themselves, half a second later

    @property
    def is_closed(self) -> bool:
        return all(kept.is_over() for kept in self._kept.values())


class _Kept:
    """A server and its keeper."""

    def __init__(self, address: str, keeper: int, pidfd: int, status: int, since: float,
                 process: subprocess.Popen[bytes] | None = None) -> None:
        self.address, self.keeper, self.since = address, keeper, since
        self._pidfd, self._status, self._process = pidfd, status, process

    def is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)  # a keeper that is stopped would not obey

    def cell(self, number: int) -> int:
        return int.from_bytes(os.pread(self._status, at.CELL, number * at.CELL), sys.byteorder, signed=True)

    def last_lines(self) -> str:
        length = min(self.cell(at.S_WRITTEN), at.TAIL_BYTES)
        text = os.pread(self._status, length, at.TAIL_AT).decode(errors="replace").strip()
        shown = text[-SHOWN_CHARACTERS:]
        return shown if shown == text else shown.partition("\n")[2] or shown  # whole lines

    def why(self) -> str:
        if not self.cell(at.S_ENDED):
            return "its keeper was killed"
        status = self.cell(at.S_STATUS)
        return f"was killed by {_signal_name(-status)}" if status < 0 else f"exited with code {status}"

    def close(self) -> None:
        os.close(self._pidfd)
        os.close(self._status)
        if self._process is not None:
            self._process.wait()  # it is over


def _taken_up(found: Found) -> _Kept | None:
    """The server of a keeper that another controller has started; None: it has ended meanwhile."""
    try:
        pidfd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return None
    try:
        status = os.open(f"/proc/{found.pid}/fd/{found.status}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(pidfd)
        return None
    if start_time(found.pid) != found.started:
        os.close(pidfd)
        os.close(status)
        return None
    return _Kept(found.address, found.pid, pidfd, status, _since(found.started))


def _since(started: int) -> float:
    """When a process was started, on the monotonic clock; `started` in clock ticks since boot, as `start_time` has it."""
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age_s


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(name, value)
    return text


def _environment(settings: ProcessSettings, words: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return inherited | {name: _filled(value, words) for name, value in settings.environment.items()}


def _user(settings: ProcessSettings) -> tuple[int, int, list[int]] | None:
    """User, group and further groups of a server; None: those of this process. Raises StartFailed."""
    if not settings.user and not settings.group:
        return None
    try:
        user = pwd.getpwnam(settings.user) if settings.user else pwd.getpwuid(os.geteuid())
        group = grp.getgrnam(settings.group).gr_gid if settings.group else user.pw_gid
    except KeyError as exc:
        raise StartFailed(f"user {settings.user} or group {settings.group}: {exc.args[0]}") from exc
    if os.geteuid() not in (0, user.pw_uid):
        raise StartFailed(f"user {settings.user}: only root may start processes of another user, and this is uid {os.geteuid()}")
    return user.pw_uid, group, os.getgrouplist(user.pw_name, group)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
