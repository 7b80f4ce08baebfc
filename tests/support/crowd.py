"""A crowd of idle clients in a process of its own, so that its descriptors are not the test's."""
from __future__ import annotations

import random
import re
import select
import subprocess
import sys
from pathlib import Path

from tests.support.client import Address, Connection, Fields

_REPOSITORY = Path(__file__).resolve().parents[2]


def browser_fields(number: int) -> Fields:
    """Fields as a browser sends them; those of two numbers differ, as those of two clients do."""
    rng = random.Random(number)
    return [
        ("Host", "test.example"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Referer", f"https://www.example.com/{number}"),
        ("Cookie", f"session={rng.getrandbits(128):032x}; theme=dark"),
        ("X-Request-Id", f"{rng.getrandbits(128):032x}"),
    ]


class Crowd:
    """`count` kept connections, each of which has had an answer; a context manager that ends the process."""

    def __init__(self, address: Address, count: int) -> None:
        self.count = count
        host, port = address
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crowd", host, str(port), str(count)], cwd=_REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def __enter__(self) -> Crowd:
        assert self._answer() == self.count, "not every client was answered"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=20)  # the end of its input is its end
        finally:
            self._process.kill()

    def ended(self) -> int:
        """How many of them have been disconnected, or told something unasked."""
        return self._ask("ended")

    def request(self) -> int:
        """Send one more request on each connection; how many were answered with 200."""
        return self._ask("request")

    def _ask(self, what: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the crowd's process ended; its error is on stderr"
        return int(line)


def pss_bytes(pid: int) -> int:
    """The process's proportional set size in bytes: its own memory, and its share of what it has with others (proc(5))."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def _main(host: str, port: int, count: int) -> None:
    connections = [Connection((host, port)) for _ in range(count)]

    def ask_all() -> int:
        return sum(connection.request("/", fields=browser_fields(number)).status == 200
                   for number, connection in enumerate(connections))

    print(ask_all(), flush=True)
    poll = select.poll()
    for connection in connections:
        poll.register(connection.sock, select.POLLIN | select.POLLRDHUP)
    for line in sys.stdin:
        print(ask_all() if line.strip() == "request" else len(poll.poll(0)), flush=True)


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
