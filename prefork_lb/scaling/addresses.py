"""The addresses that a pool's servers may have: a range of ports, or a unix socket a server."""
from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from prefork_lb.errors import shown
from prefork_lb.net.address import Address, parse_address

_RANGE = re.compile(r"([^/]+):([1-9][0-9]{0,4})-([1-9][0-9]{0,4})")
_NUMBER = "{n}"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses by number, from 1 on. `last` is 0 where there is no end."""

    pattern: str  # "unix:/run/app-{n}.sock"; empty: ports
    host: str = "127.0.0.1"
    first: int = 0  # port; 0: any free one
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """ "127.0.0.1:9000-9099", "[::1]:9000-9099", "unix:/run/app-{n}.sock" or "auto". Raises ValueError."""
        if text == AUTO:
            return cls("")
        if text.startswith("unix:"):
            if text.count(_NUMBER) != 1:
                raise ValueError(f"{shown(text)} has no {_NUMBER}, or two; each server needs a socket of its own, as in "
                                 "unix:/run/app-{n}.sock")
            parse_address(text.replace(_NUMBER, "100000"))
            return cls(text)
        found = _RANGE.fullmatch(text)
        if found is None:
            raise ValueError(f'{shown(text)} is no range of addresses; expected "127.0.0.1:9000-9099", '
                             '"unix:/run/app-{n}.sock" or "auto"')
        low, high = (parse_address(f"{found[1]}:{found[i]}") for i in (2, 3))
        if low.port > high.port:
            raise ValueError(f"{shown(text)}: the first port is above the last one")
        return cls("", low.host, low.port, high.port)

    @property
    def count(self) -> int:
        """How many there are; 0: as many as are wanted."""
        return self.last - self.first + 1 if self.first else 0

    def of(self, n: int) -> Address | None:
        """The address with this number; None: there is none, or any free port will do."""
        if self.pattern:
            return parse_address(self.pattern.replace(_NUMBER, str(n)))
        return Address(self.host, self.first + n - 1) if self.first and n <= self.count else None

    def free(self, n: int, taken: set[str]) -> Address | None:
        """An address that no process listens at: that of this number, or else another one. None: all are in use.

        `taken` are those of servers that may not listen yet.
        """
        return next((address for address in self._candidates(n) if str(address) not in taken and _is_free(address)), None)

    def _candidates(self, n: int) -> Iterator[Address]:
        if self.pattern:
            yield from filter(None, [self.of(n)])
        elif self.first:
            yield from (Address(self.host, self.first + (n - 1 + i) % self.count) for i in range(self.count))
        else:
            yield from (Address(self.host, _any_port(self.host)) for _ in range(20))


def _is_free(address: Address) -> bool:
    """Whether a server could listen here now."""
    if address.is_unix:
        return not _answers(address.path)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections of one that has ended, which the kernel still remembers, are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as exc:
            # Any other error is the server's to tell: it says more about the reason.
            return exc.errno != errno.EADDRINUSE
    return True


def _answers(path: str) -> bool:
    """Whether a process listens at a unix socket. A file that none listens at is removed: many servers refuse to start then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove_socket(path)
            return False
        except OSError as exc:
            return exc.errno in (errno.EAGAIN, errno.EPROTOTYPE)
    return True


def _remove_socket(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the server will say that it cannot use it


def _any_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
