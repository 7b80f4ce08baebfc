"""How servers read paths that are not plain: each reader decodes a target as a kind of server is known to do.

A request gets by an access rule when a proxy passes it on and one of these finds the path that the rule is for. They are those
that attackers' lists aim at. None folds case, and none knows the file names of Windows (trailing dots, streams, short names):
there a rule by path is of no use.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

Reader = Callable[[bytes], bytes]
"""From a target's path, as bytes on the wire, to the path that is served."""

# What best-fit tables and lenient UTF-8 decoders make of slash, backslash and dot (RFC 3629 10; Orange Tsai, "WorstFit", 2025).
_LIKE = [(re.compile(pattern), text) for pattern, text in (
    (rb"\xc0\xae|\xe0\x80\xae|\xf0\x80\x80\xae|\xc0\x2e|\xef\xbc\x8e|\xef\xb9\x92|\xe2\x80\xa4", b"."),
    (rb"\xe2\x80\xa5", b".."),
    (rb"\xc0\xaf|\xe0\x80\xaf|\xf0\x80\x80\xaf|\xc0\x2f|\xef\xbc\x8f|\xe2\x88\x95|\xe2\x81\x84", b"/"),
    (rb"\xc1\x9c|\xc0\x5c|\xe0\x81\x9c|\xef\xbc\xbc|\xe2\x88\x96|\xef\xb9\xa8|\xc2\xa5|\xe2\x82\xa9", b"/"),
)]
_IIS = re.compile(rb"%u([0-9A-Fa-f]{4})")
_COOKIELESS = re.compile(rb"(?<=/)\((?:[A-Za-z]\([^/()]*\))+\)/?")


def _resolved(path: bytes, merges: bool = True) -> bytes:
    segments: list[bytes] = []
    for segment in path.lstrip(b"/").split(b"/") if merges else path[1:].split(b"/"):
        if segment == b"..":
            segments = segments[:-1]
        elif segment != b"." and not (merges and not segment):
            segments.append(segment)
    return b"/" + b"/".join(segment for segment in segments if segment)


def _plain(path: bytes) -> bytes:
    return _resolved(unquote_to_bytes(path))


def _climbs_in_empty_segments(path: bytes) -> bytes:
    return _resolved(unquote_to_bytes(path), merges=False)


def _undecoded(path: bytes) -> bytes:
    return _resolved(path)


def _decodes_twice(path: bytes) -> bytes:
    return _resolved(unquote_to_bytes(unquote_to_bytes(path)))


def _java(path: bytes) -> bytes:
    """Tomcat, Jetty, Resin, WebLogic: what follows a semicolon in a segment are parameters."""
    return _resolved(unquote_to_bytes(b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))))


def _late_java(path: bytes) -> bytes:
    return _resolved(b"/".join(segment.partition(b";")[0] for segment in unquote_to_bytes(path).split(b"/")))


def _windows(path: bytes) -> bytes:
    """IIS and .NET: a backslash is a slash, `%uXXXX` is a character."""
    path = _IIS.sub(lambda match: chr(int(match[1], 16)).encode("utf-8", "surrogatepass"), path)
    return _resolved(_fitted(unquote_to_bytes(path)).replace(b"\\", b"/"))


def _aspnet(path: bytes) -> bytes:
    """Sessions without cookies: `/(S(x))/` is taken out."""
    return _resolved(_COOKIELESS.sub(b"", unquote_to_bytes(path)))


def _fitted(path: bytes) -> bytes:
    for pattern, text in _LIKE:
        path = pattern.sub(text, path)
    return path


def _lenient_utf8(path: bytes) -> bytes:
    return _resolved(_fitted(unquote_to_bytes(path)))


def _lenient_utf8_twice(path: bytes) -> bytes:
    return _resolved(_fitted(unquote_to_bytes(unquote_to_bytes(path))))


def _cuts(path: bytes) -> bytes:
    """C strings end at NUL; Apache's file names at an escaped question mark (CVE-2024-38474); others at a number sign."""
    return _resolved(re.split(rb"[\0?#\r\n]", unquote_to_bytes(path))[0])


def _strips(path: bytes) -> bytes:
    """Python's and JavaScript's strip: control characters and blanks go, at the ends of segments."""
    segments = unquote_to_bytes(path).split(b"/")
    return _resolved(b"/".join(segment.strip(bytes(range(0x21)) + b"\x7f\x85\xa0") for segment in segments))


def _drops_controls(path: bytes) -> bytes:
    """Parsers after the WHATWG's URL standard remove tabs and line breaks."""
    return _resolved(re.sub(rb"[\0\t\r\n]", b"", unquote_to_bytes(path)))


def _finds_a_host(path: bytes) -> bytes:
    """Two slashes begin a host, as in a link; backslashes count."""
    path = unquote_to_bytes(path).replace(b"\\", b"/")
    return _resolved(b"/" + path[2:].partition(b"/")[2] if path.startswith(b"//") else path)


READERS: dict[str, Reader] = {
    "plain": _plain, "climbs in empty segments": _climbs_in_empty_segments, "decodes nothing": _undecoded,
    "decodes twice": _decodes_twice, "Java": _java, "Java, late": _late_java, "IIS": _windows, "ASP.NET": _aspnet,
    "lenient UTF-8": _lenient_utf8, "lenient UTF-8, twice": _lenient_utf8_twice, "cuts": _cuts, "strips": _strips,
    "drops controls": _drops_controls, "finds a host": _finds_a_host,
}


def readers_of(target: bytes, secret: bytes) -> list[str]:
    """The readers to which a target leads to the path `secret`, or below it."""
    path = target.partition(b"?")[0]
    return [name for name, read in READERS.items() if (read(path) + b"/").startswith(secret + b"/")]
