"""What starts and stops the servers of a pool: a driver."""
from __future__ import annotations

from typing import NamedTuple, Protocol

from prefork_lb.errors import PreforkLBError

SHOWN_CHARACTERS = 1500
"""Of the last output of a program, in the log and to operators."""


class StartFailed(PreforkLBError):
    """A server that cannot be started: why, for the operator."""


class Running(NamedTuple):
    """A server that runs, or is about to."""

    address: str
    since: float  # when it was started, on the monotonic clock
    stop_timeout_s: float | None = None  # that it was started with; None: unknown


class Ended(NamedTuple):
    """A server that has ended, or could not be started."""

    n: int
    why: str  # in words: "exited with code 1"
    last_lines: str = ""  # of what it has written; empty: unknown


class Driver(Protocol):
    """Starts and stops the servers of one pool. Each has a number: 1, 2 and so on.

    No call waits for a server or a network: what takes long is begun, and a later call tells what came of it. `adopt` and `close`
    may wait some seconds for a program of this host.
    """

    def start(self, n: int) -> None:
        """Begin to start the server `n`. Raises StartFailed; what fails later is told by `ended`."""

    def address(self, n: int) -> str:
        """The address of the server `n` in the pool's spelling; empty: not known yet."""

    def last_lines(self, n: int) -> str:
        """The end of what the server `n` has written so far; empty: unknown."""

    def memory(self, n: int) -> int | None:
        """The bytes that the server `n` uses, with the processes that it has started; None: unknown."""

    def cpu_s(self, n: int) -> float | None:
        """The seconds of CPU time that these have used so far; None: unknown."""

    def stop(self, n: int, hard: bool) -> None:
        """Ask the server `n` to end; `hard`: end it at once. `ended` tells when it has."""

    def ended(self) -> list[Ended]:
        """The servers that have ended since the last call, whatever the reason."""

    def adopt(self) -> dict[int, Running]:
        """The servers that run already, since a controller before this one has started them. Called once, before all others."""

    def close(self) -> None:
        """The instance has ended: end all servers. Not called when the controller ends and another one follows."""

    @property
    def is_closed(self) -> bool:
        """Whether they have ended, after `close`, as far as that can be waited for."""
