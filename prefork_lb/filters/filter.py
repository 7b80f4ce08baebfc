"""The base class of filters, what one is made from, and what its methods give and get."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prefork_lb.filters.http import HTTPClient
from prefork_lb.filters.memory import Memory
from prefork_lb.filters.message import Request, Response

SettingValue = str | bool | int | float | tuple[str, ...]
"""What a setting of a filter may be in the configuration."""


class Setup:
    """What a filter is made from."""

    def __init__(self, settings: Mapping[str, SettingValue], memory: Memory, http: HTTPClient,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """`settings` are what the configuration has beside `use`; `clock` gives seconds that only grow."""
        self.memory = memory
        self.http = http
        self.clock = clock
        self._settings = settings
        self._known: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        """A setting that is a string. Raises ValueError when it is none, or missing without a default."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise ValueError(f"{name} = {value!r}: expected a string")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A setting that is a number; raises as `text`."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} = {value!r}: expected a number")
        return value

    def texts(self, name: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """A setting that is a list of strings; raises as `text`."""
        value = self._value(name, None if default is None else tuple(default))
        if not isinstance(value, tuple):
            raise ValueError(f"{name} = {value!r}: expected a list of strings")
        return value

    def check_all_known(self) -> None:
        """Raise ValueError for a setting that the filter has not asked for."""
        for name in self._settings:
            if name not in self._known:
                raise ValueError(f"it has no setting {name!r}; it has {', '.join(self._known) or 'none'}")

    def _value(self, name: str, default: SettingValue | None) -> SettingValue:
        self._known.append(name)
        value = self._settings.get(name, default)
        if value is None:
            raise ValueError(f"the setting {name} is missing")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the filter's own: no server is asked."""

    status: int
    body: str | bytes = ""
    fields: Mapping[str, str] = field(default_factory=dict)  # Content-Type is text/plain unless it is here


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of a request."""

    status: int  # of the answer to the client; 499: the client left before there was one
    server: str  # the address of the server that answered, or of the last attempt; empty: none was asked
    seconds: float  # from the request's head to the answer's end
    bytes_in: int  # of the request's body
    bytes_out: int  # of the answer's body
    error: str  # why it did not finish, in words; empty: it did


class Filter:
    """Looks at the requests of a route or pool. One object serves all requests of its worker; methods that a class does not
    override are not called.

    In a ProxyWorker requests take turns in one thread: what waits must wait by `setup.http`, or all other requests wait, too. In
    gunicorn's threads several requests are in a filter at once.
    """

    def __init__(self, setup: Setup) -> None:
        """Made once in each worker, before its first request. An exception stops the start, or the reload."""

    def on_request(self, request: Request) -> Answer | None:
        """Before a server is picked: look at the request, change it, choose a pool or key, or answer it.

        None: the request goes on. An exception is a 500 for the client and a line in the log.
        """
        return None

    def on_response(self, request: Request, response: Response) -> None:
        """A server has answered: look at the head of its response, or change it. An exception is as of `on_request`."""

    def on_end(self, request: Request, exchange: Exchange) -> None:
        """The exchange is over, however it ended. Must not wait."""
