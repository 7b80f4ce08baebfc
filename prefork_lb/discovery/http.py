"""A list of servers by HTTP, in the format of Prometheus' `http_sd`."""
from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager

from prefork_lb.discovery.listing import parse_listing
from prefork_lb.discovery.source import MOST_BYTES, ListError, Listing

_READ_S = 5.0  # to connect, and between two reads
_LOOK_S = 10.0  # in all
_REDIRECTS = 5
_PIECE_BYTES = 65536

_Note = Callable[[socket.socket], None]


class HTTPSource:
    """A URL that is asked every `interval_s`; with the ETag of the last answer, where it has one."""

    def __init__(self, url: str, interval_s: float) -> None:
        self._url = url
        self._interval_s = interval_s
        self._deadline = 0.0
        self._etag = ""
        self._last: Listing | None = None

    def look(self) -> Listing:
        sockets: list[socket.socket] = []

        def note(connected: socket.socket) -> None:
            sockets.append(connected)
            self._check_time()  # the watchdog may have ended those before this one

        # Before the watchdog begins: what that has ended is late.
        self._deadline = time.monotonic() + _LOOK_S
        # requests knows the time between two reads only. A server that trickles could keep it for ever, already in the head.
        watchdog = threading.Timer(_LOOK_S, _end, (sockets,))
        watchdog.daemon = True
        watchdog.start()
        try:
            with requests.Session() as session:
                session.max_redirects = _REDIRECTS
                for scheme in ("http://", "https://"):
                    session.mount(scheme, _Adapter(note))
                return self._ask(session)
        except (requests.RequestException, OSError, ValueError) as exc:
            self._check_time()
            raise ListError(_in_words(exc)) from exc
        finally:
            watchdog.cancel()

    def _ask(self, session: requests.Session) -> Listing:
        headers = {"Accept": "application/json", "User-Agent": "prefork_lb"}
        if self._etag and self._last is not None:
            headers["If-None-Match"] = self._etag
        with session.get(self._url, headers=headers, timeout=_READ_S, stream=True) as answer:
            if answer.status_code == 304 and self._last is not None:
                return self._last
            if answer.status_code != 200:
                raise ListError(f"the answer has the status {answer.status_code}")
            data = b""
            for piece in answer.iter_content(_PIECE_BYTES):
                data += piece
                if len(data) > MOST_BYTES:
                    raise ListError(f"longer than {MOST_BYTES >> 20} MiB, the most that is read")
            self._check_time()  # the end of the body may be the watchdog's
            etag = answer.headers.get("ETag", "")
        servers = parse_listing(data, ".json")
        self._etag, self._last = etag, Listing(servers, self._interval_s)
        return self._last

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            raise ListError(f"no whole answer within {_LOOK_S:g} s")

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)

    def close(self) -> None:
        """Nothing is held."""


class _Adapter(HTTPAdapter):
    """Tells of the sockets of its connections, so that they can be ended."""

    def __init__(self, note: _Note) -> None:
        self._note = note
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> PoolManager:
        is_known = proxy in self.proxy_manager
        manager: PoolManager = super().proxy_manager_for(proxy, **more)
        if not is_known:
            self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        # The manager's own kinds: a SOCKS proxy has others.
        manager.pool_classes_by_scheme = {scheme: _noting(kind, self._note)
                                          for scheme, kind in manager.pool_classes_by_scheme.items()}


def _noting(pool: type[HTTPConnectionPool], note: _Note) -> type[HTTPConnectionPool]:
    """This kind of pool, with connections that tell of their sockets."""
    plain: Any = pool.ConnectionCls

    def connect(connection: Any) -> None:
        plain.connect(connection)
        note(connection.sock)

    own: dict[str, Any] = {"connect": connect}
    if plain.__module__ == "urllib3.contrib.socks":
        own |= _by_socks(plain, note)
    return type(pool.__name__, (pool,), {"ConnectionCls": type(plain.__name__, (plain,), own)})


def _by_socks(plain: Any, note: _Note) -> dict[str, Any]:
    """What makes a SOCKSConnection of urllib3 tell of its socket before the handshake with the proxy."""
    import socks  # type: ignore[import-untyped]  # there are such connections, so PySocks is there

    def begin(connection: Any, *arguments: Any, **more: Any) -> None:
        connection.by = more["_socks_options"]
        plain.__init__(connection, *arguments, **more)

    def connected(connection: Any) -> Any:
        by = connection.by
        proxy, failure = (by["proxy_host"], by["proxy_port"]), OSError("the proxy has no address")
        for family, kind, protocol, _, _ in socket.getaddrinfo(*proxy, 0, socket.SOCK_STREAM):
            made = socks.socksocket(family, kind, protocol)
            try:
                made.settimeout(connection.timeout)
                made.set_proxy(by["socks_version"], *proxy, by["rdns"], by["username"], by["password"])
                note(made)
                made.connect((connection.host, connection.port))
            except OSError as exc:
                made.close()
                failure = exc
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise failure

    return {"__init__": begin, "_new_conn": connected}


def _end(sockets: list[socket.socket]) -> None:
    for each in sockets:
        try:
            socket.socket.shutdown(each, socket.SHUT_RDWR)  # not TLS's own way, which would wait
        except OSError:
            pass


def _in_words(exc: Exception) -> str:
    if isinstance(exc, requests.TooManyRedirects):
        return f"more than {_REDIRECTS} redirects"
    if isinstance(exc, requests.Timeout):
        return f"no answer within {_READ_S:g} s"
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return f"no answer: {getattr(cause, 'strerror', None) or cause or type(cause).__name__}"
