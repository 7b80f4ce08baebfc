"""A name that resolves as the test says, in the processes of a balancer, and a resolver that hangs.

The C library's resolver is replaced where Python calls it: below `socket`, and below gevent's resolver, too. There it blocks a
thread of the system, as the real one does.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.balancer import REPOSITORY

_REPLACEMENT = '''
import _socket, os, pathlib, socket, time
folder = pathlib.Path(os.environ["TEST_NAMES"])
real, sleep = _socket.getaddrinfo, time.sleep  # sleep: not what gevent puts in its place

def getaddrinfo(host, port, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if not (name or "").endswith(".test"):
        return real(host, port, *args, **kwargs)
    with open(folder / "asked", "a") as asked:
        asked.write(f"{os.getpid()} {name}\\n")
    while (folder / "hangs").exists():
        sleep(0.1)
    hosts = (folder / name).read_text().split() if (folder / name).exists() else []
    if not hosts:
        raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in hosts]

_socket.getaddrinfo = getaddrinfo
'''


class Names:
    """What the names below `.test` resolve to. Start a balancer with `environ`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_REPLACEMENT)
        self.environ = {"TEST_NAMES": str(folder), "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}

    def set(self, name: str, hosts: Sequence[str]) -> None:
        """Let a name resolve to these addresses, in this order; to none: it is not known."""
        new = self._folder / f"{name}.new"
        new.write_text(" ".join(hosts))
        new.rename(self._folder / name)

    def hang(self) -> None:
        """Let every look-up from now on wait until `answer`."""
        (self._folder / "hangs").touch()

    def answer(self) -> None:
        """Let those that hang go on."""
        (self._folder / "hangs").unlink(missing_ok=True)

    def asked(self) -> list[int]:
        """The pids of those who asked, one for each look-up."""
        file = self._folder / "asked"
        return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []
