"""One check of one server: a request or a connection, and what came of it.

HTTP goes through `requests`, below its sessions: an adapter of our own for each server, whose pool of one connection is
asked directly. What a session does beyond that (cookies, redirects, proxies of the environment, netrc) a check must not do.
"""
from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from prefork_lb.controller.route import Route, connect
from prefork_lb.controller.words import duration, is_closing, ranges, short, why
from prefork_lb.net.address import Address
from prefork_lb.net.tls import upstream_context

BODY_LIMIT_BYTES = 64 * 1024
USER_AGENT = "prefork_lb-check"

# A body that nobody looks at is read only to keep the connection, which is not worth more time than this.
_DRAIN_S = 0.1
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Probe:
    """What is asked of one server, and what a good answer is."""

    type: str  # "http" or "tcp"
    address: Address
    method: str = "GET"
    path: str = "/"
    host: str = ""  # the Host field; empty: the server's address
    headers: tuple[tuple[str, str], ...] = ()
    statuses: frozenset[int] = frozenset(range(200, 400))
    text: str = ""  # must be in the first 64 KiB of the body; empty: not looked at
    pattern: str = ""  # a regular expression, as `text`
    timeout_s: float = 2.0  # of the whole check: connection, head and body
    port: int = 0  # to check instead of the address's own; 0: its own
    verify: bool = True  # this and what follows: TLS, for https:// addresses
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""  # sent (SNI) and verified; empty: the address's host

    @property
    def checked_address(self) -> Address:
        """The address that is connected to."""
        return replace(self.address, port=self.port) if self.port and not self.address.is_unix else self.address


class Outcome(NamedTuple):
    """What came of a check."""

    passed: bool
    reason: str  # a few words for the operator
    seconds: float


class Prober:
    """Makes checks, from any number of threads, and keeps connections to the servers between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Probe, list[_Client]] = {}
        self._wanted: frozenset[Probe] | None = None  # None: all

    def probe(self, probe: Probe) -> Outcome:
        """Make one check. Never raises; returns within `timeout_s`, except that the system's resolver may take longer."""
        started = time.monotonic()
        try:
            passed, reason = self._judge(probe, started)
        except Exception as exc:
            passed, reason = False, why(exc, probe.timeout_s)
        seconds = time.monotonic() - started
        return Outcome(passed, f"{reason} in {duration(seconds)}" if passed else reason, seconds)

    def keep(self, probes: Collection[Probe]) -> None:
        """Close the connections of all other probes, now or when a check that is under way has ended."""
        with self._lock:
            self._wanted = frozenset(probes)
            dropped = [self._idle.pop(probe) for probe in list(self._idle) if probe not in self._wanted]
        for clients in dropped:
            for client in clients:
                client.close()

    def close(self) -> None:
        """Close all connections; those of checks under way when these have ended."""
        self.keep(())

    def _judge(self, probe: Probe, started: float) -> tuple[bool, str]:
        deadline = started + probe.timeout_s
        if probe.type == "tcp":
            connect(probe.checked_address, deadline).close()
            return True, "connected"
        with self._lock:
            clients = self._idle.get(probe)
            client = clients.pop() if clients else None
        client = client or _Client(probe)
        try:
            return client.check(deadline)
        finally:
            with self._lock:
                is_wanted = self._wanted is None or probe in self._wanted
                if is_wanted:
                    self._idle.setdefault(probe, []).append(client)
            if not is_wanted:
                client.close()


class _Connection(HTTPConnection):
    """Connects as its route says: over TCP, TLS or a unix socket."""

    def __init__(self, *args: Any, route: Route, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._route = route

    def connect(self) -> None:
        # Errors of ours are none that urllib3 knows, so they come through as they are.
        self.sock = self._route.connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Sends to one server, whatever the URL says: nothing is looked up in it for each request."""

    def __init__(self, route: Route, path: str) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._path = path
        self._pool = _Pool(route.address.host or "localhost", route.address.port or None, maxsize=1, route=route)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def get_connection(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool  # what requests before 2.32 asks for

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """The route's context does it."""

    def request_url(self, *args: Any, **kwargs: Any) -> str:
        return self._path

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Client:
    """Checks one server over HTTP, one check at a time."""

    def __init__(self, probe: Probe) -> None:
        """Raises ValueError or re.error when the probe cannot be made, as for a file for TLS that is of no use."""
        self._probe = probe
        self._pattern = re.compile(probe.pattern) if probe.pattern else None
        address = probe.checked_address
        context = upstream_context(probe.verify, probe.ca_file, probe.certificate, probe.key) if address.tls else None
        self._route = Route(address, probe.server_name or address.host, context)
        headers = {"Host": probe.host or _host_field(address), "User-Agent": USER_AGENT, "Accept": "*/*"}
        own = {name.lower() for name, _ in probe.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in own} | dict(probe.headers)
        self._request = requests.Request(probe.method, f"http://{_host_field(address)}/", headers).prepare()
        self._adapter = _Adapter(self._route, probe.path)

    def close(self) -> None:
        self._adapter.close()

    def check(self, deadline: float) -> tuple[bool, str]:
        """Whether the server's answer is good, and the reason. Raises what `requests` and urllib3 raise, and UpstreamError."""
        self._route.deadline = deadline
        response = self._ask()
        try:
            return self._judge(response)
        finally:
            response.raw.close()  # of a body that was read to its end, the connection is back in the pool already

    def _ask(self) -> requests.Response:
        before = self._route.connections
        try:
            return self._send()
        except requests.ConnectionError as exc:
            if self._route.connections != before or not is_closing(exc):
                raise
        # An idle connection that the server closed at this moment says nothing about the server.
        return self._send()

    def _send(self) -> requests.Response:
        return self._adapter.send(self._request, stream=True, timeout=self._route.left_s())

    def _judge(self, response: requests.Response) -> tuple[bool, str]:
        probe = self._probe
        status = response.status_code
        if status not in probe.statuses:
            self._drain(response)
            return False, f"status {status}, expected {ranges(probe.statuses)}"
        if not probe.text and self._pattern is None:
            self._drain(response)
            return True, str(status)
        body = response.raw.read(BODY_LIMIT_BYTES, decode_content=True)
        text = _decode(body, response.headers)
        if probe.text and probe.text not in text:
            return False, f"text {short(probe.text)} not found"
        if self._pattern is not None and not self._pattern.search(text):
            return False, f"pattern {short(probe.pattern)} not found"
        return True, str(status)

    def _drain(self, response: requests.Response) -> None:
        raw = response.raw
        if raw.length_remaining is not None and raw.length_remaining > BODY_LIMIT_BYTES:
            return
        self._route.deadline = min(self._route.deadline, time.monotonic() + _DRAIN_S)
        try:
            raw.read(BODY_LIMIT_BYTES, decode_content=False)
        except (HTTPError, HTTPException, OSError):
            pass  # the connection is not kept, and that is all


def _host_field(address: Address) -> str:
    if address.is_unix:
        return "localhost"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == (443 if address.tls else 80) else f"{host}:{address.port}"


def _decode(body: bytes, headers: Mapping[str, str]) -> str:
    # Without a charset it is UTF-8, as today's servers mean it, and not what RFC 2616 said.
    named = _CHARSET.search(headers.get("Content-Type", ""))
    try:
        return body.decode(named[1] if named else "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")
