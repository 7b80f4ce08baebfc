"""Visitors of the session application: each has a login and a jar of cookies, and notices when the login is lost."""
from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.support.balancer import REPOSITORY
from tests.support.place import HOST, clean_environment

_CLIENTS = 12
_TIMEOUT_S = 20.0
_MOST_ATTEMPTS = 40


class SessionServer:
    """A process of the session application."""

    def __init__(self, route: str, port: int = 0) -> None:
        self.route = route
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.session_app", HOST, str(port), route], cwd=REPOSITORY, env=clean_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the application {route} has not started"
        self.port = int(line)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Visitor:
    """One browser."""

    def __init__(self, name: str, site: str, address: Callable[[], tuple[str, int]]) -> None:
        """`site` is the host that it asks for, at `address`."""
        self.name = name
        self.jar: dict[str, str] = {}
        self.routes: list[str] = []  # the server of each login
        self.lost = 0
        self.foreign = 0  # answers of another server than that of the login
        self.leaked = 0  # cookies of the balancer that a server has seen
        self.given = 0  # cookies that the balancer has set
        self._site = site
        self._address = address

    def log_in(self) -> None:
        status, body = self._ask("POST", f"/login/{self.name}")
        assert status == 200, (status, body)
        self.routes.append(body)

    def look(self) -> None:
        """Look at the account; log in again when it is lost."""
        status, body = self._ask("GET", "/account")
        assert status in (200, 401), (status, body)
        name, route, cookies = body.split(" ", 2)
        self.leaked += "prefork_lb=" in cookies
        if status == 401:
            self.lost += 1
            self.log_in()
            return
        assert name == self.name, f"the login of {name} was shown to {self.name}"
        self.foreign += route != self.routes[-1]

    def _ask(self, method: str, path: str) -> tuple[int, str]:
        """One request, sent again when the connection breaks: its worker may have been killed."""
        for attempt in range(_MOST_ATTEMPTS):
            connection = http.client.HTTPConnection(*self._address(), timeout=_TIMEOUT_S)
            try:
                fields = {"Host": self._site}
                if self.jar:
                    fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
                connection.request(method, path, headers=fields)
                response = connection.getresponse()
                body = response.read().decode()
            except (OSError, http.client.HTTPException):
                if attempt == _MOST_ATTEMPTS - 1:
                    raise
                continue
            finally:
                connection.close()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    cookie, _, content = value.partition(";")[0].partition("=")
                    self.given += cookie == "prefork_lb"
                    self.jar[cookie] = content
            return response.status, body
        raise AssertionError("unreachable")


def log_in(visitors: Iterable[Visitor]) -> None:
    """Let all of them log in, many at a time."""
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(Visitor.log_in, visitors))


def visit(visitors: Iterable[Visitor], times: int, meanwhile: Callable[[], object] | None = None) -> None:
    """Let each of them look so often, many at a time, in rounds. `meanwhile` runs beside them; they go on until it is over."""
    visitors = list(visitors)
    with ThreadPoolExecutor(_CLIENTS) as pool, ThreadPoolExecutor(1) as other:
        begun = other.submit(meanwhile) if meanwhile is not None else None
        rounds = 0
        while rounds < times or (begun is not None and not begun.done()):
            list(pool.map(Visitor.look, visitors))
            rounds += 1
        if begun is not None:
            begun.result()
            list(pool.map(Visitor.look, visitors))
