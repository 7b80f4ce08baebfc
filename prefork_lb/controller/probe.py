"""One check of one server: a request or a connection, and what came of it.

A check goes the way of the traffic: its connections are made by the dialer, and its answers are read by the reader that requests
use, with the same limits. So a server whose answers clients cannot get fails its checks, and the reason says why.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from prefork_lb.controller.check_words import duration, why
from prefork_lb.controller.http_check import CheckRequest, HTTPCheck
from prefork_lb.errors import OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.dial import SocketDialer
from prefork_lb.net.tls import ClientTLS, upstream_context
from prefork_lb.wire import proxy_protocol
from prefork_lb.wire.head import HeadLimits


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
    timeout_s: float = 2.0  # of the whole check: look-up, connection, head and body
    port: int = 0  # to check instead of the address's own; 0: its own
    verify: bool = True  # this and what follows: TLS, for https:// addresses
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""  # sent (SNI) and verified; empty: the address's
    proxy_protocol: int = 0  # version of the PROXY header that the server expects; 0: none
    limits: HeadLimits = HeadLimits()  # those of the traffic

    @property
    def checked_address(self) -> Address:
        """The address that is connected to."""
        return replace(self.address, port=self.port) if self.has_port_of_its_own else self.address

    @property
    def has_port_of_its_own(self) -> bool:
        """Whether another port than the traffic's is checked."""
        return self.port not in (0, self.address.port) and not self.address.is_unix


class CheckOutcome(NamedTuple):
    """The outcome of a check."""

    passed: bool | None  # None: this host could not make the check, so nothing is known about the server
    reason: str  # a few words for the operator
    seconds: float


class _NotMade(Exception):
    """This host lacks what the check needs."""


class Prober:
    """Makes checks, from any number of threads, and keeps connections to the servers between them."""

    def __init__(self) -> None:
        self._dialer = SocketDialer()
        self._lock = threading.Lock()
        self._idle: dict[Probe, list[HTTPCheck]] = {}
        self._wanted: frozenset[Probe] | None = None  # None: all

    def probe(self, probe: Probe) -> CheckOutcome:
        """Make one check. Never raises, and returns within `timeout_s`."""
        started = time.monotonic()
        passed: bool | None
        try:
            passed, reason = self._judge(probe, started + probe.timeout_s)
        except (OutOfDescriptors, _NotMade) as exc:
            passed, reason = None, str(exc)
        except Exception as exc:
            passed, reason = False, why(exc, probe.checked_address, probe.timeout_s)
        seconds = time.monotonic() - started
        return CheckOutcome(passed, f"{reason} in {duration(seconds)}" if passed else reason, seconds)

    def keep(self, probes: Collection[Probe]) -> None:
        """Close the connections of all other probes: now, or when the check that uses one has ended."""
        with self._lock:
            self._wanted = frozenset(probes)
            dropped = [self._idle.pop(probe) for probe in list(self._idle) if probe not in self._wanted]
        for checks in dropped:
            for check in checks:
                check.close()

    def close(self) -> None:
        """Close all connections; those of checks under way when these have ended."""
        self.keep(())

    def _judge(self, probe: Probe, deadline: float) -> tuple[bool, str]:
        if probe.type == "tcp":
            self._dialer.dial(probe.checked_address, deadline - time.monotonic()).close()
            return True, "connected"
        with self._lock:
            checks = self._idle.get(probe)
            check = checks.pop() if checks else None
        check = check or self._new_check(probe)
        try:
            return check.make(deadline)
        finally:
            with self._lock:
                is_wanted = self._wanted is None or probe in self._wanted
                if is_wanted:
                    self._idle.setdefault(probe, []).append(check)
            if not is_wanted:
                check.close()

    def _new_check(self, probe: Probe) -> HTTPCheck:
        """Raises _NotMade when a file for TLS is of no use."""
        address = probe.checked_address
        tls: ClientTLS | None = None
        if address.tls:
            try:
                context = upstream_context(probe.verify, probe.ca_file, probe.certificate, probe.key)
            except ValueError as exc:  # it was checked with the configuration; the file has changed since
                raise _NotMade(str(exc)) from exc
            tls = ClientTLS(context, probe.server_name or address.tls_name)
        # A port of its own is another service, which need not know that there is a proxy.
        told = probe.proxy_protocol and not probe.has_port_of_its_own
        preamble = proxy_protocol.proxy_header(probe.proxy_protocol, None, None) if told else b""
        request = CheckRequest(probe.method, probe.path, probe.host or _host_field(address), probe.headers)
        return HTTPCheck(request, probe.statuses, probe.text, probe.pattern, probe.limits,
                         lambda timeout_s: self._dialer.dial(address, timeout_s, tls, preamble))


def _host_field(address: Address) -> str:
    if address.is_unix:
        return "localhost"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == (443 if address.tls else 80) else f"{host}:{address.port}"
