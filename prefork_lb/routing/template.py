"""Texts with parts of the request in them: `https://example.org/new/{rest}`."""
from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence

from prefork_lb.net.networks import LiesIn
from prefork_lb.routing.path import compared
from prefork_lb.wire.certificates import ClientCertificate
from prefork_lb.wire.forwarded import ClientInfo, client_scheme, told_client
from prefork_lb.wire.head import RequestHead


class Facts:
    """What a text can hold of a request, each worked out when somebody looks at it."""

    __slots__ = ("_client", "_is_trusted", "_path", "_peer", "_prefixes", "head", "host", "target")

    def __init__(self, head: RequestHead, target: bytes, host: str, prefixes: Sequence[str], peer: ClientInfo,
                 is_trusted: LiesIn) -> None:
        """`target` is in origin-form, `host` without its port. `prefixes` are the paths of the route, `is_trusted` says whether
        the proxy at an address is believed."""
        self.head, self.host = head, host
        self.target = target  # path and query as they go on
        self._prefixes, self._peer, self._is_trusted = prefixes, peer, is_trusted
        self._path: bytes | None = None
        self._client: str | None = None

    @property
    def certificate(self) -> ClientCertificate | None:
        """What the other end of the connection has shown; None: nothing, or it speaks no TLS."""
        return self._peer.certificate

    @property
    def query(self) -> bytes:
        """With its question mark; empty: there is none."""
        return b"".join(self.target.partition(b"?")[1:])

    @property
    def path(self) -> bytes:
        """The path in its normal form."""
        if self._path is None:
            self._path = compared(self.target.partition(b"?")[0]).path
        return self._path

    @property
    def rest(self) -> bytes:
        """What follows the longest prefix of the route that the path has, without a slash at its begin, with the query. The whole
        path where it has none."""
        path, best = self.path, 0
        for prefix in self._prefixes:
            bare = prefix.encode().removesuffix(b"/")
            if prefix[0] == "/" and len(bare) > best and path.startswith(bare) and path[len(bare):len(bare) + 1] in (b"", b"/"):
                best = len(bare)
        return path[best:].removeprefix(b"/") + self.query

    @property
    def client(self) -> str:
        """The client's address, as trusted proxies tell it."""
        if self._client is None:
            self._client = told_client(self.head.index, self._peer.address, self._is_trusted)
        return self._client

    @property
    def scheme(self) -> bytes:
        """http or https, as `client_scheme` has it."""
        return client_scheme(self.head.index, self._peer)


_VALUES: Mapping[str, Callable[[Facts], bytes]] = {
    "host": lambda facts: facts.host.encode(),
    "path": lambda facts: facts.path,
    "query": lambda facts: facts.query,
    "rest": lambda facts: facts.rest,
    "client": lambda facts: facts.client.encode() or b"unknown",
    "scheme": lambda facts: facts.scheme,
    "method": lambda facts: facts.head.method,
    "tls_subject": lambda facts: facts.certificate.subject if facts.certificate is not None else b"",
    "tls_fingerprint": lambda facts: facts.certificate.fingerprint if facts.certificate is not None else b"",
}
ONLY_IN_FIELDS = ("tls_subject", "tls_fingerprint")
"""Places whose values may hold blanks, and so cannot stand in a target."""


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
        self._only = _VALUES[self.names[0]] if self.names and len(self._parts) == 1 else None  # the text is one place

    def __call__(self, facts: Facts) -> bytes:
        """The text for a request. No place has a control character, so none can end a field."""
        if self._only is not None:
            return self._only(facts)
        return b"".join([part if isinstance(part, bytes) else part(facts) for part in self._parts])
