"""A WSGI environ as the head of a request."""
from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from prefork_lb.errors import BadRequest, VersionNotSupported
from prefork_lb.net.address import unmapped
from prefork_lb.proxy.request import TrustCheck
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import FieldSection, RequestHead
from prefork_lb.wire.memo import Memo

# RFC 9110 2.5: a minor version that we do not know is read as the highest one that we do.
_MINOR = {"HTTP/1.0": 0, **{f"HTTP/1.{minor}": 1 for minor in range(1, 10)}}


def request_head(environ: dict[str, Any]) -> RequestHead:
    """The head that the server parsed. Names have lost their case, and repeated fields stand joined; both mean the same
    (RFC 9110 5.1, 5.3). Raises BadRequest, VersionNotSupported."""
    minor = _MINOR.get(environ["SERVER_PROTOCOL"])
    if minor is None:
        raise VersionNotSupported(environ["SERVER_PROTOCOL"])
    target = environ.get("RAW_URI") or _target(environ)
    pairs = tuple([item for item in environ.items() if item[0][:5] == "HTTP_" or item[0] in _CONTENT])
    try:
        return RequestHead(environ["REQUEST_METHOD"].encode("latin-1"), target.encode("latin-1"), minor, _fields(pairs))
    except UnicodeEncodeError as exc:
        raise BadRequest("a character in the head that is no byte") from exc


def _section(pairs: tuple[tuple[str, str], ...]) -> FieldSection:
    return FieldSection((_field_name(key), value.encode("latin-1")) for key, value in pairs if value or key not in _CONTENT)


# PEP 3333 lets these two stand empty instead of absent.
_CONTENT = {"CONTENT_TYPE": b"Content-Type", "CONTENT_LENGTH": b"Content-Length"}
_fields = Memo[tuple[tuple[str, str], ...], FieldSection](
    _section, size=lambda pairs: sum([len(value) for _, value in pairs]))


def client_info(environ: dict[str, Any], is_tls: bool, is_trusted: TrustCheck) -> ClientInfo:
    """The client's side of the connection. Only a unix socket's clients have no address; they are on this host, with
    the permission to use the socket, and so trusted."""
    address = unmapped(environ.get("REMOTE_ADDR", ""))
    port = environ.get("SERVER_PORT", "")
    # Not wsgi.url_scheme: gunicorn lets X-Forwarded-Proto of its own list of proxies decide that.
    return ClientInfo(address, b"https" if is_tls else b"http", int(port) if port.isdigit() else 0,
                      is_trusted(address) if address else True)


@lru_cache(maxsize=512)
def _field_name(key: str) -> bytes:
    """The field's name for an environ key: HTTP_ACCEPT_LANGUAGE is Accept-Language."""
    if key in _CONTENT:
        return _CONTENT[key]
    return "-".join(part.capitalize() for part in key[5:].split("_")).encode("latin-1")


def _target(environ: dict[str, Any]) -> str:
    # A server other than gunicorn: PEP 3333's URL reconstruction.
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/!$&'()*+,;=:@~") or "/"
    query = environ.get("QUERY_STRING")
    return f"{path}?{query}" if query else path
