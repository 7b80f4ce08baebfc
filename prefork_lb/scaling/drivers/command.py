"""Servers that an operator's programs start and end, such as machines of a cloud: `up` prints an address, `down` is given it.

What was started is noted in a folder, so that the next controller finds it, and the next instance, when one ends without having
ended its servers. Each server has a folder in it, `N-TIME`, with the files of its hooks.
"""
from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefork_lb.clock import Clock, monotonic
from prefork_lb.net.address import parse_address
from prefork_lb.scaling.driver import Ended, Running, StartFailed
from prefork_lb.scaling.hook import Hook

_AGAIN_S = 10.0  # after a `down` that has failed

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """The hooks."""

    up: Sequence[str]
    down: Sequence[str]


class CommandDriver:
    """See `driver.Driver`."""

    def __init__(self, pool: str, folder: Path, settings: CommandSettings, clock: Clock = monotonic) -> None:
        self._pool, self._folder, self._settings, self._clock = pool, folder, settings, clock
        self._servers: dict[int, _Server] = {}
        self._left: list[_Server] = []  # that another controller has begun to end

    def use(self, settings: CommandSettings) -> None:
        """Call these hooks from now on."""
        self._settings = settings

    def start(self, n: int) -> None:
        server = _Server(self._folder / f"{n}-{time.time_ns()}")
        try:
            self._prepare()
            server.folder.mkdir()
            server.up.start(self._settings.up, self._environment(n, "", len(self._servers) + 1))
        except (OSError, ValueError) as exc:  # ValueError: a zero byte in a word
            # The next controller would take it for a server, and call `down` with a number that another one has by then.
            shutil.rmtree(server.folder, ignore_errors=True)
            raise StartFailed(f"{self._settings.up[0]} cannot be called: {exc}") from exc
        self._servers[n] = server

    def address(self, n: int) -> str:
        return self._servers[n].address

    def last_lines(self, n: int) -> str:
        return self._servers[n].up.errors()

    def memory(self, n: int) -> int | None:
        return None

    def cpu_s(self, n: int) -> float | None:
        return None

    def stop(self, n: int, hard: bool) -> None:
        server = self._servers[n]
        if hard:
            server.up.kill()
            server.down.kill()
        server.is_unwanted, server.down_at = True, self._clock()

    def ended(self) -> list[Ended]:
        self._left = [server for server in self._left if self._look_at(server) is None]
        found = [ended for server in self._servers.values() if (ended := self._look_at(server)) is not None]
        for ended in found:
            del self._servers[ended.n]
        return found

    def adopt(self) -> dict[int, Running]:
        """Raises OSError."""
        self._prepare()
        for folder in sorted(self._folder.iterdir()):
            server = _Server(folder)
            # One whose `up` was killed may have begun to start something: `down` gets its number.
            if server.down.has_begun or server.up.code() == -1:
                server.is_unwanted = server.is_told = True
                self._left.append(server)
            elif server.n in self._servers:
                log.error("pool %s: there are two servers %d, %s is left alone", self._pool, server.n, folder)
            else:
                self._servers[server.n] = server
        epoch = time.time() - self._clock()
        for server in self._servers.values():
            server.note_up()
        return {n: Running(server.address, server.up.begun_at - epoch) for n, server in self._servers.items()}

    def close(self) -> None:
        for server in self._all():
            server.up.kill()  # else it could start something after `down`
            server.note_up()  # it may have ended since the last look
            if not server.is_being_ended():
                self._call_down(server)

    @property
    def is_closed(self) -> bool:
        return all(server.down.code() is not None for server in self._all())

    def _all(self) -> list[_Server]:
        return [*self._servers.values(), *self._left]

    def _prepare(self) -> None:
        """Have the folder. Raises OSError, also when it is another user's, who could have any program called."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._folder.lstat().st_uid != os.geteuid():
            raise PermissionError(f"{self._folder} is another user's")

    def _look_at(self, server: _Server) -> Ended | None:
        """See what has become of a server, and call `down` when it is time for that. Not None: it has ended."""
        failure = server.note_up()
        if not server.is_unwanted:
            return self._forget(server, failure, server.up.errors()) if failure else None
        if server.down.has_begun:
            code = server.down.code()
            if code is None:
                return None
            if code == 0:
                return self._forget(server, "was ended by `down`")
            self._note_failed_down(server, code)
        elif not server.is_up_over:
            return None  # it is not known yet what there is to end
        if self._clock() >= server.down_at:
            self._call_down(server)
        return None

    def _note_failed_down(self, server: _Server, code: int) -> None:
        if not server.is_told:
            server.is_told, server.down_at = True, self._clock() + _AGAIN_S
            log.error("pool %s: server %s: %s has failed with code %d, and is called again in %g s: %s", self._pool,
                      server.address or server.n, self._settings.down[0], code, _AGAIN_S, server.down.errors())

    def _call_down(self, server: _Server) -> None:
        others = sum(1 for each in self._servers.values() if not each.is_unwanted and each is not server)
        server.is_told = False
        try:
            server.down.start(self._settings.down, self._environment(server.n, server.address, others))
        except OSError as exc:
            log.error("pool %s: server %s: %s cannot be called: %s", self._pool, server.address or server.n,
                      self._settings.down[0], exc)
            server.down_at = self._clock() + _AGAIN_S

    def _environment(self, n: int, address: str, count: int) -> dict[str, str]:
        return {"PREFORK_LB_POOL": self._pool, "PREFORK_LB_N": str(n), "PREFORK_LB_ADDRESS": address,
                "PREFORK_LB_COUNT": str(count)}

    def _forget(self, server: _Server, why: str, last_lines: str = "") -> Ended:
        shutil.rmtree(server.folder, ignore_errors=True)
        return Ended(server.n, why, last_lines)


class _Server:
    """A server and its hooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n = int(folder.name.partition("-")[0])
        self.up, self.down = Hook(folder / "up"), Hook(folder / "down")
        self.address = ""
        self.is_up_over = False  # `up` has ended, and what it has said was taken over
        self.is_unwanted = False
        self.is_told = False  # that `down` has failed
        self.down_at = 0.0  # when `down` is called, by the driver's clock

    def is_being_ended(self) -> bool:
        """Whether `down` runs, or has ended well."""
        return self.down.has_begun and self.down.code() in (None, 0)

    def note_up(self) -> str:
        """Take over what `up` has said, when it has ended; why that is no server, or "" ."""
        code = None if self.address else self.up.code()
        if code is None:
            return ""
        self.is_up_over = True
        if code:
            return f"`up` has failed with code {code}" if code > 0 else "`up` was killed"
        lines = self.up.output().splitlines()
        try:
            self.address = str(parse_address(lines[-1].strip() if lines else ""))
        except ValueError as exc:
            return f"`up` has printed no address: {exc}"
        return ""


def servers_folder(state_file: str, configuration: str, pool: str) -> Path:
    """Where the servers of a pool are noted: beside the state file, or, without one, in /tmp."""
    if state_file:
        return Path(f"{state_file}.servers-{pool}")
    return Path(f"/tmp/prefork-lb-{os.geteuid()}{configuration.replace('/', '-')}-{pool}")
