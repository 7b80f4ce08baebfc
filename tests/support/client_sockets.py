"""Which worker has which client connections, as the kernel has them."""
from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_ESTABLISHED, _LISTENING = 1, 10  # states of TCP (include/net/tcp_states.h)
_READS = 3
_ALL_STATES = 0xFFF

# sock_diag(7), linux/inet_diag.h
_NETLINK_SOCK_DIAG, _BY_FAMILY, _REQUEST_DUMP, _ERROR, _DONE = 4, 20, 0x301, 2, 3
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, number, port
_WANTED = struct.Struct("=BBxxI")  # family, protocol, states
_ENDS = struct.Struct("!HH16s16sIQ")  # ports and addresses of both ends, interface, cookie
_FOUND = struct.Struct("=xBxx48xIIIII")  # state, then (after the ends) expiry, queues, owner, inode


def shares(pids: Iterable[int], port: int) -> list[int]:
    """How many established IPv4 connections to the local `port` each of the processes has."""
    established = {inode for inode, state in _states(port) if state == _ESTABLISHED}
    return [len(established & _sockets(pid)) for pid in pids]


def connections(pid: int, port: int) -> int:
    """How many connections to the local `port` the process has, also those that its clients have closed. 0 without a process."""
    return len({inode for inode, state in _states(port) if state != _LISTENING} & _sockets(pid))


def _states(port: int) -> set[tuple[int, int]]:
    """The inodes of the IPv4 sockets with the local `port`, each with its state."""
    # While other connections come and go, a read may miss some sockets or show them twice.
    read = _ask if _answers() else _read
    return set().union(*(read(port) for _ in range(_READS)))


def _answers() -> bool:
    """Whether this kernel answers questions about sockets. To read the table takes a hundred times as long."""
    with contextlib.suppress(OSError):
        _ask(1)
        return True
    return False


def _ask(port: int) -> set[tuple[int, int]]:
    request = _WANTED.pack(socket.AF_INET, socket.IPPROTO_TCP, _ALL_STATES) + _ENDS.pack(port, 0, b"", b"", 0, (1 << 64) - 1)
    found = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(_MESSAGE.pack(_MESSAGE.size + len(request), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + request, (0, 0))
        while True:
            answer = kernel.recv(1 << 16)
            while answer:
                length, kind, *_ = _MESSAGE.unpack_from(answer)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, _MESSAGE.size)[0], "sock_diag")
                state, *_, inode = _FOUND.unpack_from(answer, _MESSAGE.size)
                found.add((inode, state))
                answer = answer[(length + 3) & ~3:]


def _read(port: int) -> set[tuple[int, int]]:
    """The same from proc(5)."""
    local = f":{port:04X} "  # splitting all rows of a busy machine would take long
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if local in line]
    return {(int(row[9]), int(row[3], 16)) for row in rows if row[1].endswith(local[:-1])}


def _sockets(pid: int) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):  # the process has ended meanwhile
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:"):
                    found.add(int(target[8:-1]))
    return found
