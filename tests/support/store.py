"""A redis-server of a test's own, on a unix socket in its folder."""
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.waiting import wait_until

REDIS_SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
WHY_NOT = "needs redis-server (apt-get install redis-server)"


class RedisServer:
    """A context manager; it keeps nothing on disk. `options` are further ones of redis-server, `config` a configuration file."""

    def __init__(self, folder: Path, *options: str, config: Path | None = None) -> None:
        self._options = options
        self._config = [] if config is None else [str(config)]
        # The path of a unix socket may have 107 bytes.
        self.path = folder / "r.sock"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}?db=0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        assert REDIS_SERVER is not None
        self.process = subprocess.Popen(
            [REDIS_SERVER, *self._config, "--port", "0", "--unixsocket", str(self.path), "--save", "", "--appendonly", "no",
             "--dir", str(self._folder), "--logfile", "redis.log", *self._options], stdin=subprocess.DEVNULL)
        wait_until(lambda: self.command("PING") == b"+PONG\r\n", "redis-server answers", 20)

    def command(self, *words: str) -> bytes:
        """Its answer to a command, up to 4096 bytes; empty when it is not there."""
        try:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(5)
                connected.connect(str(self.path))
                connected.sendall(f"{' '.join(words)}\r\n".encode())
                return connected.recv(4096)
        except OSError:
            return b""

    def stop_running(self) -> None:
        """SIGSTOP: it accepts connections and answers nobody."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
