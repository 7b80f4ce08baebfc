"""HTTP clients for filters under test."""
from __future__ import annotations

from collections.abc import Mapping

from prefork_lb.filters import HTTPAnswer
from prefork_lb.filters.http import NO_FIELDS


class NoHTTP:
    """For filters that ask nobody."""

    def get(self, url: str, fields: Mapping[str, str] = NO_FIELDS, timeout_s: float = 1.0) -> HTTPAnswer:
        raise AssertionError(url)

    def request(self, method: str, url: str, fields: Mapping[str, str] = NO_FIELDS, body: bytes = b"",
                timeout_s: float = 1.0) -> HTTPAnswer:
        raise AssertionError(url)
