"""What an application hands to ProxyWorker so that it can serve clients without WSGI in between."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prefork_lb.net.tls import Certificate
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.request import Ended, TrustCheck
from prefork_lb.wire.head import HeadLimits


def nothing() -> None:
    """Hears of something and does nothing."""


class SiblingClients(Protocol):
    """How the workers tell one another of their client connections. `prefork_lb.shared.Ledger` does."""

    def note_clients(self, count: int) -> None:
        """This worker has `count` client connections; -1: it accepts no more."""

    def fewest_clients(self) -> int | None:
        """The fewest connections that a sibling has; None: no sibling has published a number."""

    def note_lag(self, seconds: float) -> None:
        """This worker's loop lags so far."""

    def note_lingering(self, connections: int) -> None:
        """This worker was replaced, and still serves `connections` connections."""

    def must_yield_row(self) -> bool:
        """Whether this worker, which lingers, has to end so that a new one can start."""


@dataclass(frozen=True, slots=True)
class ProxySetup:
    """The engine of one worker, and the configuration of its client side."""

    engine: Engine
    is_trusted: TrustCheck
    limits: HeadLimits
    head_timeout_s: float
    idle_timeout_s: float
    body_timeout_s: float  # 0: no limit
    body_rate: int  # bytes a second
    ahead_bytes: int  # of a response, received while its client takes nothing
    proxy_protocol: bool  # expected from trusted peers
    most_lag_s: float  # 0: no limit
    certificates: Sequence[Certificate]  # the first is for clients that ask for no other
    siblings: SiblingClients
    linger_s: float  # how long a replaced worker may serve the connections that it has; 0: for gunicorn's graceful_timeout
    close_idle: Callable[[], int]  # closes the idle connections to servers; how many that were
    instance_lives: Callable[[], bool]  # whether a gunicorn master of this instance runs
    ended: Ended | None = None  # hears of exchanges
    note_shed: Callable[[], None] = nothing  # hears of each request or connection that is refused for overload


@runtime_checkable
class ProxyApplication(Protocol):
    """A WSGI application with an engine that ProxyWorker can serve clients with. ProxyWorker calls any other one by WSGI."""

    def proxy_setup(self) -> ProxySetup:
        """Attach this worker process, once. Return what the worker needs. Raises PreforkLBError."""
