"""Requests that this host makes itself on the way of a client's, over the streams of its worker."""
from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urlsplit

from prefork_lb.errors import CapacityError, UpstreamError
from prefork_lb.filters.http import NO_FIELDS, HTTPAnswer, NoAnswer
from prefork_lb.filters.message import Fields
from prefork_lb.net.address import parse_address
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from prefork_lb.net.tls import ClientTLS, upstream_context
from prefork_lb.proxy.attempt import AttemptSettings
from prefork_lb.proxy.inbound import NO_CLIENT, BodyReader, HeadReader
from prefork_lb.wire import grammar
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.framing import response_framing

_MOST_BODY_BYTES = 1 << 20
_SCHEMES = ("http", "https")


class OwnRequests:
    """A `filters.HTTPClient` over the streams of one kind of worker."""

    def __init__(self, settings: AttemptSettings) -> None:
        self._settings = settings

    def get(self, url: str, fields: Mapping[str, str] = NO_FIELDS, timeout_s: float = 1.0) -> HTTPAnswer:
        return self.request("GET", url, fields, b"", timeout_s)

    def request(self, method: str, url: str, fields: Mapping[str, str] = NO_FIELDS, body: bytes = b"",
                timeout_s: float = 1.0) -> HTTPAnswer:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.netloc or "@" in parts.netloc:
            raise ValueError(f"{url[:80]!r} is no URL of a server; expected http://HOST:PORT/PATH")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        block = _block(method, target, parts.netloc, fields, body)
        address = parse_address(f"{parts.scheme}://{parts.netloc}")
        tls = ClientTLS(self._context, address.tls_name) if address.tls else None
        clock = self._settings.clock
        deadline = clock() + timeout_s
        try:
            stream = self._settings.dial(address, timeout_s, tls)
            try:
                stream.send(block + body, max(0.001, deadline - clock()))
                reader = HeadReader(stream, self._settings.limits, False, self._settings.parse)
                head = reader.read_final(NO_CLIENT, max(0.001, deadline - clock()), clock)
                contents = BodyReader(stream, response_framing(head, method.encode()), reader.rest, self._settings.limits,
                                      max(0.001, deadline - clock()), NO_CLIENT)
                received = bytearray()
                while piece := contents.read():
                    received += piece
                    if len(received) > _MOST_BODY_BYTES or clock() > deadline:
                        raise NoAnswer(f"{url[:80]}: longer than {_MOST_BODY_BYTES} bytes, or than {timeout_s:g} s")
            finally:
                stream.close()
        except (UpstreamError, CapacityError) as exc:
            raise NoAnswer(f"{url[:80]}: {exc.phase}: {exc}") from exc
        except (StreamClosed, StreamTimeout) as exc:
            raise NoAnswer(f"{url[:80]}: it did not take the request within {timeout_s:g} s: {exc}") from exc
        return HTTPAnswer(head.status, Fields(head.fields, of_request=False), bytes(received))

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context, file = upstream_context(), ssl.get_default_verify_paths().cafile
        if file is not None and not context.cert_store_stats()["x509"]:
            # OpenSSL does not say that it could not read the file, as when all descriptors are in use; and this context is kept.
            try:
                context.load_verify_locations(file)
            except ssl.SSLError:
                pass  # it holds no certificates
            except OSError as exc:
                raise NoAnswer(f"{file}: no certificates of authorities: {exc.strerror}") from exc
        return context


def _block(method: str, target: str, host: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """The request's head. Raises ValueError for what cannot stand in one."""
    start = f"{method} {target} HTTP/1.1".encode()
    if not grammar.request_line.fullmatch(start) or not grammar.authority.fullmatch(host.encode()) or method == "CONNECT":
        raise ValueError(f"{method[:20]!r} {target[:80]!r} of {host[:80]!r} is no request")
    written = Fields((), of_request=False)
    for name, value in fields.items():
        written.add(name, value)
    length = b"Content-Length: %d\r\n" % len(body) if body or method in ("POST", "PUT", "PATCH") else b""
    return b"%b\r\nHost: %b\r\n%b%bConnection: close\r\n\r\n" % (start, host.encode(), field_lines(written.pairs), length)
