"""The client by which filters ask other servers without stopping their worker: its interface."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from prefork_lb.filters.message import Fields

NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class NoAnswer(Exception):
    """There was no whole answer within the time; the message says why."""


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """An answer to a request of a filter."""

    status: int
    fields: Fields
    body: bytes


class HTTPClient(Protocol):
    """Asks by http and https. While a request waits, a ProxyWorker serves others; a thread of gunicorn's waits as usual. Each
    request has a connection of its own. Redirects are not followed, and no proxy of the environment is used."""

    def get(self, url: str, fields: Mapping[str, str] = NO_FIELDS, timeout_s: float = 1.0) -> HTTPAnswer:
        """`request` with GET."""

    def request(self, method: str, url: str, fields: Mapping[str, str] = NO_FIELDS, body: bytes = b"",
                timeout_s: float = 1.0) -> HTTPAnswer:
        """Ask, and return the whole answer, of up to 1 MiB; `timeout_s` is for all of it.

        Raises NoAnswer, and ValueError for a URL or field that is none. An answer of any status is an answer.
        """
