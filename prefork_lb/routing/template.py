"""Texts with parts of the request in them: `https://example.org/new/{rest}`."""
from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import NamedTuple

from prefork_lb.wire.head import RequestHead


class Facts(NamedTuple):
    """What a text can hold of a request."""

    head: RequestHead
    host: str  # without its port
    path: bytes  # in its normal form
    query: bytes  # with its question mark; empty: there is none
    rest: bytes  # what follows the route's prefix, without a slash at its begin, with the query
    client: str  # its address, as trusted proxies tell it
    scheme: bytes


_VALUES: Mapping[str, Callable[[Facts], bytes]] = {
    "host": lambda facts: facts.host.encode(),
    "path": lambda facts: facts.path,
    "query": lambda facts: facts.query,
    "rest": lambda facts: facts.rest,
    "client": lambda facts: facts.client.encode() or b"unknown",
    "scheme": lambda facts: facts.scheme,
    "method": lambda facts: facts.head.method,
}


class Template:
    """A text and the places in it."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a place that is none."""
        self._parts: list[bytes | Callable[[Facts], bytes]] = []
        self.names: list[str] = []
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as exc:
            raise ValueError(f"{text!r}: {exc}; write {{{{ and }}}} for braces") from None
        for literal, name, form, conversion in parsed:
            if literal:
                self._parts.append(literal.encode())
            if name is not None:
                if name not in _VALUES or form or conversion:
                    raise ValueError(f"{text!r}: there is no {{{name}}}; expected one of "
                                     f"{', '.join(f'{{{known}}}' for known in _VALUES)}")
                self._parts.append(_VALUES[name])
                self.names.append(name)

    def __call__(self, facts: Facts) -> bytes:
        """The text for a request. No part of a request has a control character or a blank, so none can end a field."""
        return b"".join([part if isinstance(part, bytes) else part(facts) for part in self._parts])
