"""A WSGI environ as the head of a request."""
from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from prefork_lb.errors import BadRequest, HeadTooLarge, VersionNotSupported
from prefork_lb.net.address import unmapped
from prefork_lb.proxy.request import TrustCheck
from prefork_lb.wire.certificates import ClientCertificate
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import FieldSection, HeadLimits, RequestHead
from prefork_lb.wire.memo import Memo

# RFC 9110 2.5: a minor version that we do not know is read as the highest one that we do.
_MINOR = {"HTTP/1.0": 0, **{f"HTTP/1.{minor}": 1 for minor in range(1, 10)}}


_Pairs = tuple[tuple[str, str], ...]

# PEP 3333 lets these two stand empty instead of absent.
_CONTENT = {"CONTENT_TYPE": b"Content-Type", "CONTENT_LENGTH": b"Content-Length"}

_LINE_EXTRA = len(b": \r\n")
_START_EXTRA = len(b"  HTTP/1.1\r\n\r\n")


class RequestHeads:
    """Makes the heads of one worker's requests from what the server parsed, within `limits.head_bytes`.

    gunicorn limits the length of a line and the number of lines. Both together allow a much larger head.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._most_bytes = limits.head_bytes
        self._section = Memo[_Pairs, tuple[FieldSection, int]](_section, _kept_bytes)

    def __call__(self, environ: dict[str, Any]) -> RequestHead:
        """The head of a request. Names have lost their case, and repeated fields stand joined; both mean the same (RFC 9110
        5.1, 5.3). Raises BadRequest, HeadTooLarge, VersionNotSupported."""
        minor = _MINOR.get(environ["SERVER_PROTOCOL"])
        if minor is None:
            raise VersionNotSupported(environ["SERVER_PROTOCOL"])
        method, target = environ["REQUEST_METHOD"], environ.get("RAW_URI") or _target(environ)
        pairs = tuple([item for item in environ.items() if item[0][:5] == "HTTP_" or item[0] in _CONTENT])
        try:
            section, size = self._section(pairs)
            size += len(method) + len(target) + _START_EXTRA
            if size > self._most_bytes:
                raise HeadTooLarge(f"the head has {size} bytes, at most {self._most_bytes} are allowed")
            return RequestHead(method.encode("latin-1"), target.encode("latin-1"), minor, section)
        except UnicodeEncodeError as exc:
            raise BadRequest("a character in the head that is no byte") from exc


def _section(pairs: _Pairs) -> tuple[FieldSection, int]:
    """The fields, and how many bytes their lines have."""
    fields = FieldSection((_field_name(key), value.encode("latin-1")) for key, value in pairs if value or key not in _CONTENT)
    return fields, sum([len(name) + len(value) + _LINE_EXTRA for name, value in fields.fields])


def _kept_bytes(pairs: _Pairs) -> int:
    """How many bytes the pairs take, at most, their fields, and what is worked out from them; measured as wire.head's."""
    return 1536 + 450 * len(pairs) + 7 * sum([len(key) + len(value) for key, value in pairs])


def client_info(environ: dict[str, Any], is_tls: bool, is_trusted: TrustCheck,
                certificate: ClientCertificate | None = None) -> ClientInfo:
    """The client's side of the connection. Only a unix socket's clients have no address; they are on this host, with
    the permission to use the socket, and so trusted."""
    address = unmapped(environ.get("REMOTE_ADDR", ""))
    # Behind a unix socket gunicorn takes the port from the Host that the client sent.
    port = environ.get("SERVER_PORT", "") if address else ""
    # Not wsgi.url_scheme: gunicorn lets X-Forwarded-Proto of its own list of proxies decide that.
    return ClientInfo(address, b"https" if is_tls else b"http", int(port) if port.isdecimal() and len(port) <= 5 else 0,
                      is_trusted(address) if address else True, certificate)


def _field_name(key: str) -> bytes:
    """The field's name for an environ key: HTTP_ACCEPT_LANGUAGE is Accept-Language."""
    return _short_name(key) if len(key) <= _LONGEST_NAME else _spelled(key)


def _spelled(key: str) -> bytes:
    if key in _CONTENT:
        return _CONTENT[key]
    return "-".join([part.capitalize() for part in key[5:].split("_")]).encode("latin-1")


_LONGEST_NAME = 64
_short_name = lru_cache(maxsize=512)(_spelled)


def _target(environ: dict[str, Any]) -> str:
    # A server other than gunicorn: PEP 3333's URL reconstruction.
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/!$&'()*+,;=:@~") or "/"
    query = environ.get("QUERY_STRING")
    return f"{path}?{query}" if query else path
