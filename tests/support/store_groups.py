"""Several redis-servers that know of each other: a primary and a replica that sentinels watch, and a Redis Cluster."""
from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.store import RedisServer
from tests.support.waiting import wait_until

SERVICE = "store"
PATIENCE_S = 40.0
_AWAY_MS = "1000"  # a server that has been silent for so long is gone
_SLOTS = 16384


class _Group:
    """Starts servers, each on a TCP port, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack, self._started = folder, ExitStack(), 0
        self._ports: set[int] = set()

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _port(self) -> int:
        """Another one each time."""
        port = next(port for port in iter(free_port, 0) if port not in self._ports)
        self._ports.add(port)
        return port

    def _start(self, port: int, *options: str, config: str | None = None) -> RedisServer:
        self._started += 1
        folder = self._folder / f"s{self._started}"
        folder.mkdir()
        file = None
        if config is not None:
            file = folder / "redis.conf"
            file.write_text(config)
        common = "--port", str(port), "--bind", HOST, "--protected-mode", "no"
        return self._stack.enter_context(RedisServer(folder, *common, *options, config=file))


class Watched(_Group):
    """A context manager: a primary with one replica, and three sentinels, two of which must agree."""

    primary: RedisServer
    replica: RedisServer
    section: str  # the keys of [cluster] that lead there

    def __enter__(self) -> Watched:
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            self._start_all()
            undo.pop_all()
        return self

    def _start_all(self) -> None:
        port, announce = self._port(), ("--replica-announce-ip", HOST)
        self.primary = self._start(port, *announce, "--repl-diskless-sync-delay", "0")
        self.replica = self._start(self._port(), *announce, "--replicaof", f"{HOST} {port}")
        _wait_for([self.replica], "INFO replication", b"master_link_status:up")
        config = (f"sentinel announce-ip {HOST}\nsentinel monitor {SERVICE} {HOST} {port} 2\n"
                  f"sentinel down-after-milliseconds {SERVICE} {_AWAY_MS}\nsentinel failover-timeout {SERVICE} 5000\n")
        ports = [self._port() for _ in range(3)]
        self.sentinels = [self._start(port, "--sentinel", config=config) for port in ports]
        _wait_for(self.sentinels, "INFO sentinel", b"slaves=1,sentinels=3")
        first, *others = (f"{HOST}:{port}" for port in ports)
        self.section = f'url = "redis://{first}/0"\nkind = "sentinel"\nservice = "{SERVICE}"\nsentinels = {json.dumps(others)}\n'


class Sharded(_Group):
    """A context manager: a Redis Cluster of three masters; with `replicas` each has one. A slot that is lost costs the others
    nothing."""

    def __init__(self, folder: Path, replicas: bool = False) -> None:
        super().__init__(folder)
        self._with_replicas = replicas
        self._ends = [_SLOTS // 3, 2 * _SLOTS // 3, _SLOTS]  # of the masters' slots

    def __enter__(self) -> Sharded:
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            self._start_all()
            undo.pop_all()
        return self

    def _start_all(self) -> None:
        self._addresses: list[tuple[int, int]] = []
        self.masters = [self._node() for _ in range(3)]
        for master, first, end in zip(self.masters, [0, *self._ends], self._ends, strict=False):
            assert master.command(f"CLUSTER ADDSLOTSRANGE {first} {end - 1}") == b"+OK\r\n"
        self.replicas = [self._node() for _ in self.masters] if self._with_replicas else []
        nodes = self.masters + self.replicas
        for port, bus in self._addresses[1:]:
            assert nodes[0].command(f"CLUSTER MEET {HOST} {port} {bus}") == b"+OK\r\n"
        _wait_for(nodes, "CLUSTER INFO", f"cluster_known_nodes:{len(nodes)}\r\n".encode())
        for master, replica in zip(self.masters, self.replicas, strict=False):
            name = master.command("CLUSTER MYID").split()[1].decode()
            _wait_for([replica], f"CLUSTER REPLICATE {name}", b"+OK")
        _wait_for(self.replicas, "INFO replication", b"master_link_status:up")
        _wait_for(nodes, "CLUSTER INFO", b"cluster_state:ok")

    @property
    def url(self) -> str:
        """Of the first master."""
        return f"redis://{HOST}:{self._addresses[0][0]}"

    def owner(self, key: str) -> RedisServer:
        """The master that has this key at the start."""
        slot = int(self.masters[0].command(f"CLUSTER KEYSLOT {key}")[1:])
        return next(master for master, end in zip(self.masters, self._ends, strict=True) if slot < end)

    def _node(self) -> RedisServer:
        port, bus = self._port(), self._port()
        self._addresses.append((port, bus))
        return self._start(
            port, "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-announce-ip", HOST, "--cluster-node-timeout",
            _AWAY_MS, "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")


def _wait_for(servers: Iterable[RedisServer], command: str, text: bytes) -> None:
    """Wait until each of them answers a command with a text."""
    for server in servers:
        wait_until(lambda server=server: text in server.command(command), f"{text!r} to {command}", PATIENCE_S)  # type: ignore[misc]
