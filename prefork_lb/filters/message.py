"""Requests and responses as filters see and change them. Texts stand for bytes, one character each (latin-1), as in WSGI."""
from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefork_lb.wire import grammar
from prefork_lb.wire.cookies import cookie
from prefork_lb.wire.fields import HOP_BY_HOP, cgi_name
from prefork_lb.wire.forwarded import is_told_by_proxies

# What frames a message, belongs to a connection or is written anew: no filter's matter.
_OURS = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"via", b"max-forwards"}
_NO_CHANGE = frozenset(("HEAD", "CONNECT", "TRACE"))


class Fields:
    """The header fields of a message. Names are compared without regard to case."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]], of_request: bool) -> None:
        """In the names of a request's fields, underscores count as hyphens when fields are written: CGI and WSGI servers cannot
        tell the two apart (RFC 3875 4.1.18), and what a filter vouches for must not come from a client."""
        self.pairs = list(fields)  # as bytes, in order
        self.is_changed = False
        self.written: set[bytes] = set()  # names in lower case
        self._of_request = of_request

    def get(self, name: str, default: str = "") -> str:
        """The first value of a name."""
        return next(iter(self.all(name)), default)

    def all(self, name: str) -> list[str]:
        """All values of a name, in order."""
        key = name.lower().encode("latin-1")
        return [value.decode("latin-1") for known, value in self.pairs if known.lower() == key]

    def set(self, name: str, value: str) -> None:
        """Write a field in the place of all of its name. Raises ValueError for what is no field, or not a filter's to change."""
        pair = self._field(name, value)
        self.remove(name)
        self._write(pair)

    def add(self, name: str, value: str) -> None:
        """Write a field beside those of its name. Raises as `set`."""
        self._write(self._field(name, value))

    def remove(self, name: str) -> None:
        """Take all fields of a name out. Raises as `set`."""
        key = self._key(self._field(name, "")[0])
        self.pairs = [pair for pair in self.pairs if self._key(pair[0]) != key]
        self.is_changed = True

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.pairs])

    def _write(self, pair: tuple[bytes, bytes]) -> None:
        self.pairs.append(pair)
        self.written.add(pair[0].lower())
        self.is_changed = True

    def _field(self, name: str, value: str) -> tuple[bytes, bytes]:
        encoded = name.encode("latin-1"), value.encode("latin-1")
        key = encoded[0].lower()
        if not grammar.token.fullmatch(key):
            raise ValueError(f"{name[:80]!r} is no name of a field")
        if key in _OURS or self._of_request and is_told_by_proxies(key):
            raise ValueError(f"{name} is the balancer's own matter")
        if not grammar.value.fullmatch(encoded[1]) or value != value.strip(" \t"):
            raise ValueError(f"{value[:80]!r} is no value of a field")
        return encoded

    def _key(self, name: bytes) -> bytes:
        return cgi_name(name) if self._of_request else name.lower()


class Request:
    """A request on its way to a pool. What is assigned is checked at once, and goes to the server."""

    def __init__(self, method: bytes, target: bytes, host: bytes | None, fields: Iterable[tuple[bytes, bytes]], client: str,
                 scheme: bytes, pool: str, pools: Iterable[str]) -> None:
        """`pools` are the names that `pool` may have."""
        self.client = client  # its address, as trusted proxies tell it; empty: it is on a unix socket
        self.scheme = scheme.decode("latin-1")  # http or https
        self.fields = Fields(fields, of_request=True)
        self.notes: dict[str, object] = {}  # for the filters themselves: what one method has to tell the next
        self.is_rewritten = False  # method, target or host were assigned
        self.is_pool_chosen = False
        self._method, self._target, self._host = method, target, host
        self._pool, self._pools = pool, frozenset(pools)
        self._key = ""

    @property
    def method(self) -> str:
        return self._method.decode("latin-1")

    @method.setter
    def method(self, method: str) -> None:
        """Raises ValueError. A HEAD stays one, and nothing becomes one: its answer has no body."""
        if method != self.method:
            if not grammar.token.fullmatch(method.encode("latin-1")) or {method, self.method} & _NO_CHANGE:
                raise ValueError(f"{self.method} cannot become {method[:40]!r}")
            self._method, self.is_rewritten = method.encode("latin-1"), True

    @property
    def target(self) -> str:
        """Path and query, as the server would get them: in the form in which routes compare paths, and after `path` of the route.
        `*` of OPTIONS."""
        return self._target.decode("latin-1")

    @target.setter
    def target(self, target: str) -> None:
        """Raises ValueError."""
        encoded = target.encode("latin-1")
        if not encoded.startswith(b"/") or b"#" in encoded or not grammar.request_line.fullmatch(b"GET %b HTTP/1.1" % encoded):
            raise ValueError(f"{target[:80]!r} is no target; expected a path that begins with a slash, and a query")
        self._target, self.is_rewritten = encoded, True

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def host(self) -> str:
        """The host that the client asks for, with its port if there is one; empty: it named none (HTTP/1.0)."""
        return (self._host or b"").decode("latin-1")

    @host.setter
    def host(self, host: str) -> None:
        """Raises ValueError."""
        if not grammar.authority.fullmatch(host.encode("latin-1")):
            raise ValueError(f"{host[:80]!r} is no host")
        self._host, self.is_rewritten = host.encode("latin-1"), True

    @property
    def pool(self) -> str:
        """The pool that the request goes to."""
        return self._pool

    @pool.setter
    def pool(self, pool: str) -> None:
        """Raises ValueError when there is no such pool."""
        if pool not in self._pools:
            raise ValueError(f"there is no pool {pool[:80]!r}; there are {', '.join(sorted(self._pools))}")
        self._pool, self.is_pool_chosen = pool, True

    @property
    def key(self) -> str:
        """What goes before the pool's `key`; empty: nothing does."""
        return self._key

    @key.setter
    def key(self, key: str) -> None:
        """Raises TypeError."""
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r:.80} is no text")
        self._key = key

    def cookie(self, name: str) -> str:
        """The value of a cookie; empty: there is none."""
        values = [value for known, value in self.fields.pairs if known.lower() == b"cookie"]
        return (cookie(values, name.encode("latin-1")) or b"").decode("latin-1")


class Response:
    """The head of a server's response."""

    def __init__(self, status: int, fields: Iterable[tuple[bytes, bytes]], server: str) -> None:
        self.server = server  # the address of the server
        self.fields = Fields(fields, of_request=False)
        self._status = status

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        """Raises ValueError for a status of which the one has content and the other has not."""
        if not _has_content(status) or not _has_content(self._status):
            raise ValueError(f"the status {self._status} cannot become {status}")
        self._status = status


def _has_content(status: int) -> bool:
    return 200 <= status <= 599 and status not in (204, 304)
