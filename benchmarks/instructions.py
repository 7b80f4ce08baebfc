"""Instructions of one ProxyWorker for a request, counted by valgrind's callgrind: the same on a busy machine.

    python -m benchmarks.instructions [--profile visitors|small] [--requests 3200]

A number of clients ask in step. What the worker does in the same time without requests is taken off. It takes nginx-light and
valgrind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

from benchmarks.contenders import REPOSITORY, free_port, origins

CLIENTS = 16
START_S = 120.0  # fifty times slower than usual
CONFIG = """
[listen]
bind = ["127.0.0.1:{port}"]
workers = 1
[admin]
bind = "127.0.0.1:{admin}"
[proxy.limits]
lag = 0
[pools.web]
policy = "least-connections"
servers = [{servers}]
"""
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"


def head(number: int, varies: bool) -> bytes:
    """A browser's request. With `varies` no two are alike, and their answers are not either."""
    name = f"{number * 7919 % 0x7FFFFFFF:08x}{number:08x}" if varies else "0" * 16
    fields = {
        "Host": "www.example.org", "User-Agent": AGENT.format(version=100 + (number % 40 if varies else 0)),
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Encoding": "gzip, deflate, br",
        "Accept-Language": "en-US,en;q=0.9,ko;q=0.8", "Cookie": f"session={name}{name}; theme=dark", "Cache-Control": "no-cache",
        "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Upgrade-Insecure-Requests": "1",
        "Referer": f"http://www.example.org/from/{name}",
    }
    path = f"/visit/{name}?page={number % 97}" if varies else "/"
    lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def answer(client: socket.socket) -> None:
    """Receive one whole answer. Raises HTTPException when the worker closes the connection before its end."""
    response = HTTPResponse(client)
    response.begin()
    response.read()
    if response.status != 200:
        raise SystemExit(f"not an answer of an origin: {response.status} {response.reason}")


def ask(clients: list[socket.socket], first: int, count: int, varies: bool) -> None:
    """Send so many requests, one from each client at a time."""
    for start in range(first, first + count, len(clients)):
        for place, client in enumerate(clients):
            client.sendall(head(start + place, varies))
        for client in clients:
            answer(client)


class Counted:
    """A worker under callgrind."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder = pid, folder

    def taken(self) -> int:
        """The instructions since the last call."""
        for file in self._folder.glob("counts.*"):
            file.unlink()
        subprocess.run(["callgrind_control", "-d", "now", str(self._pid)], capture_output=True, check=True)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for file in self._folder.glob(f"counts.{self._pid}.*"):
                if found := re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.M):
                    return int(found[1])
            time.sleep(0.1)
        raise SystemExit("callgrind writes no counts")


@contextlib.contextmanager
def balancer(folder: Path, ports: tuple[int, ...]) -> Iterator[tuple[int, Counted]]:
    """gunicorn with one worker, both under callgrind: its port and the worker."""
    port = free_port()
    config = folder / "prefork_lb.toml"
    servers = ", ".join(f'"127.0.0.1:{origin}"' for origin in ports)
    config.write_text(CONFIG.format(port=port, admin=free_port(), servers=servers))
    # With all programs but this one skipped: without --trace-children callgrind_control does not reach a forked process.
    command = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--trace-children-skip=*",
               f"--callgrind-out-file={folder}/counts.%p", sys.executable,
               str(Path(sys.executable).with_name("gunicorn")), "-c", str(REPOSITORY / "gunicorn.conf.py"), "-t", "300",
               "prefork_lb:app"]
    with (folder / "output.log").open("wb") as output:
        master = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output,
                                  env={**os.environ, "PREFORK_LB_CONFIG": str(config), "PYTHONPATH": str(REPOSITORY)})
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if master.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "output.log").read_text()[-2000:])
            time.sleep(0.2)
        time.sleep(3)  # the controller is another child of the worker
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield port, Counted(int(children[0]), folder)
    finally:
        master.terminate()
        master.wait(START_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("visitors", "small"), default="visitors")
    parser.add_argument("--requests", type=int, default=3200)
    options = parser.parse_args()
    varies = options.profile == "visitors"
    with tempfile.TemporaryDirectory(prefix="instructions-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        port, worker = stack.enter_context(balancer(folder, stack.enter_context(origins(folder / "origins"))))
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CLIENTS)]
        ask(clients, 0, 50 * CLIENTS, varies)
        worker.taken()
        begun = time.monotonic()
        ask(clients, 1000, options.requests, varies)
        seconds, busy = time.monotonic() - begun, worker.taken()
        time.sleep(seconds)
        print(f"{options.profile}: {(busy - worker.taken()) / options.requests:.0f} instructions a request")


if __name__ == "__main__":
    main()
