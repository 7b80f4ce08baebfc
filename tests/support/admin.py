"""A client of the administration interface, at a port or a unix socket."""
from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.client import TIMEOUT_S
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Answer:
    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Admin:
    """Asks the interface at `bind`, one connection a request."""

    def __init__(self, bind: str, token: str = "") -> None:
        self._bind, self._token = bind, token

    def connection(self) -> http.client.HTTPConnection:
        if self._bind.startswith("unix:"):
            return _UnixConnection(self._bind.removeprefix("unix:"))
        return http.client.HTTPConnection(self._bind, timeout=TIMEOUT_S)

    def ask(self, path: str, method: str = "GET", value: Any = None, **headers: str) -> Answer:
        """One request; `value` is sent as JSON, and underscores in the names of fields stand for hyphens."""
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        if value is not None:
            fields["Content-Type"] = "application/json"
        connection = self.connection()
        try:
            connection.request(method, path, json.dumps(value) if value is not None else None, fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self.ask("/healthz").status == 200
        except OSError:
            return False

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self.is_up, f"the administration interface at {self._bind} answers", TIMEOUT_S, every=0.05)

    def instance(self) -> Any:
        """The document of the instance."""
        answer = self.ask("/api/v1/instance")
        assert answer.status == 200, answer
        return answer.json
