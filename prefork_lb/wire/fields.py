"""Which fields travel on: hop-by-hop fields stop here, the others pass (RFC 9110 7.6.1)."""
from __future__ import annotations

from prefork_lb.wire.head import Fields, Index, list_members

HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
    # RFC 9110 11.7: credentials between a client and the next proxy.
    b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info",
    # HTTP/2's upgrade (RFC 7540 3.2.1), obsolete; RFC 9113 says not to use it.
    b"http2-settings",
))

# Fields that travel on even when a client names them in Connection: framing, routing, credentials, and fields that tell the
# server about the client. If Connection could remove them, a client could get past an access rule that reads them.
_KEPT = frozenset((
    b"host", b"content-length", b"content-type", b"content-encoding", b"content-range", b"authorization", b"cookie",
    b"set-cookie", b"cache-control", b"expect", b"via", b"forwarded", b"x-real-ip", b"origin", b"referer", b"range", b"vary",
    b"date", b"location", b"etag", b"max-forwards", b"trailer",
))
_KEPT_PREFIX = b"x-forwarded-"

_NONE: frozenset[bytes] = frozenset()

# RFC 9110 6.5.1: fields that must not be in a trailer, because they affect framing, routing or the meaning of the head.
# RFC 7230 4.1.2 lists them.
FORBIDDEN_IN_TRAILERS = HOP_BY_HOP | frozenset((
    b"host", b"content-length", b"content-type", b"content-encoding", b"content-range", b"trailer", b"authorization",
    b"cookie", b"set-cookie", b"cache-control", b"expect", b"max-forwards", b"range", b"age", b"date", b"expires", b"location",
    b"retry-after", b"vary", b"warning", b"via", b"forwarded", b"x-real-ip", b"pragma", b"www-authenticate", b"if-match",
    b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
))


# The values of Connection in nearly every message. They name no fields.
_PLAIN_OPTIONS = ([b"close"], [b"keep-alive"], [b"Keep-Alive"])


def nominated(index: Index) -> frozenset[bytes]:
    """The (lower-case) names of fields that stop here because Connection names them."""
    options = index.get(b"connection")
    if options is None or options in _PLAIN_OPTIONS:
        return _NONE
    return frozenset(name for name in list_members(options) if name not in _KEPT and not name.startswith(_KEPT_PREFIX))


def cgi_name(name: bytes) -> bytes:
    """A field's name in lower case and with hyphens for underscores, which CGI and WSGI servers cannot tell apart (RFC 3875
    4.1.18). What a client must not say it must say in neither spelling."""
    return name.lower().replace(b"_", b"-")


def allowed_trailers(fields: Fields) -> Fields:
    """The trailer fields that may travel on (RFC 9110 6.5.1)."""
    return [field for field in fields
            if field[0].lower() not in FORBIDDEN_IN_TRAILERS and not field[0].lower().startswith(_KEPT_PREFIX)]
