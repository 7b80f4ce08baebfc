"""The path of a request as routes compare it (RFC 3986 6.2.2), and what in it servers may read in another way.

Two spellings of one path must not reach two pools, or an access rule could be passed by. So escapes of characters that need none
are taken out, and `.` and `..` are resolved; the server gets the path in this form, so that it cannot read another one. For the
comparison neighbouring slashes count as one, as nginx and Apache merge them; the server gets them all. Of some spellings no
reading is sure: there servers are known to disagree. They are named, and the configuration says what becomes of them.
"""
from __future__ import annotations

import re
from typing import NamedTuple

from prefork_lb.wire import compiled

# A path without any of these is its own normal form.
_UNUSUAL = re.compile(rb"[%;\\]|//|/[.(]")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 2.3

# What some servers take for something else than others, once the escapes are decoded:
_READ_DIFFERENTLY = (
    (re.compile(rb"\\|%5C"), "a backslash, which some servers take for a slash"),
    (re.compile(rb"%2F"), "an escaped slash, which some servers take for a slash"),
    (re.compile(rb";|%3B"), "a semicolon, behind which some servers find parameters"),
    (re.compile(rb"%25[0-9A-Fa-f]{2}"), "an escaped percent sign before two digits, which some servers decode twice"),
    (re.compile(rb"%(?:[01][0-9A-F]|7F)"), "an escaped control character"),
    # Apache maps a path to a file after it has cut it at an escaped question mark (CVE-2024-38474).
    (re.compile(rb"%3F|%23"), "an escaped question mark or number sign, at which some servers end the path"),
    # ASP.NET takes sessions without cookies out of paths: /(S(x))/admin is /admin.
    (re.compile(rb"/(?:\(|%28)[A-Za-z](?:\(|%28)"), "a session of ASP.NET without cookies, which is taken out"),
    # Overlong UTF-8: lenient decoders take C0 AF for a slash and C0 AE for a dot (RFC 3629 10).
    (re.compile(rb"%C[01]|%E0%[89]|%F0%8"), "an overlong UTF-8 sequence"),
    # Converters for other character sets make `.`, `/`, `\` and `%` of these ("WorstFit", Orange Tsai, 2025): U+FF0E, U+FF0F,
    # U+FF3C, U+FF05, U+FE52, U+FE68, U+2024, U+2025, U+2044, U+2215, U+2216, and the signs of yen and won.
    (re.compile(rb"%EF%BC%8[5EF]|%EF%BC%BC|%EF%B9%(?:92|A8)|%E2%80%A[45]|%E2%81%84|%E2%88%9[56]|%C2%A5|%E2%82%A9"),
     "a character that some servers convert to a separator"),
    # Python's and JavaScript's strip() take these off, and servers have called it on paths.
    (re.compile(rb"(?:%20|%85|%A0)(?:/|\Z)"), "escaped white space at the end of a segment"),
)

_TWO_SLASHES = "two slashes at its begin, behind which some servers find a host"
_CLIMBS = '".." behind an empty segment, which climbs one step where slashes are merged and none where they are not'


class ComparedPath(NamedTuple):
    path: bytes
    sent: bytes  # to the server: the same with all slashes
    doubt: str  # why servers may read it in another way; empty: they all read it alike


def plain_path(target: bytes) -> int:
    """The length of the path of a target, where that is its own normal form and nothing in it is doubted; else -1."""
    heads = compiled.heads
    if heads is not None:
        return heads.plain_path(target)
    path = target.partition(b"?")[0]
    return len(path) if path.startswith(b"/") and _UNUSUAL.search(path) is None else -1


def compared(path: bytes) -> ComparedPath:
    """The normal form of an absolute path without its query. `*`, and whatever else begins with no slash, is left as it is."""
    if _UNUSUAL.search(path) is None or not path.startswith(b"/"):
        return ComparedPath(path, path, "")
    doubt = ""
    if b"%" in path:
        path, doubt = _unescaped(path)
    for pattern, words in _READ_DIFFERENTLY:
        if not doubt and pattern.search(path):
            doubt = words
    segments, climbs = _resolved(path)
    if climbs:
        doubt = doubt or _CLIMBS
    sent = b"/" + b"/".join(segments)
    if sent.startswith(b"//"):
        doubt = doubt or _TWO_SLASHES
    names = [segment for segment in segments if segment]
    if names and not segments[-1]:
        names.append(b"")
    return ComparedPath(b"/" + b"/".join(names), sent, doubt)


def _unescaped(path: bytes) -> tuple[bytes, str]:
    """Escapes of unreserved characters decoded, the others with capital digits; and a doubt about those that are none."""
    doubt = ""

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal doubt
        digits = match[1]
        if digits is None:
            doubt = "a percent sign without two digits"
            return match[0]
        byte = int(digits, 16)
        return bytes((byte,)) if byte in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(replace, path), doubt


def _resolved(path: bytes) -> tuple[list[bytes], bool]:
    """The segments without `.` and `..`, and whether a `..` stood behind an empty one (RFC 3986 5.2.4)."""
    segments: list[bytes] = []
    climbs = False
    last = b""
    for last in path[1:].split(b"/"):
        climbs = _step(segments, last) or climbs
    if last in (b".", b".."):
        segments.append(b"")  # the path of a folder ends with a slash
    return segments, climbs


def _step(segments: list[bytes], segment: bytes) -> bool:
    """Go one segment down, or up for `..`. Return whether the step up led out of an empty segment."""
    if segment == b"..":
        return bool(segments) and segments.pop() == b""
    if segment != b".":
        segments.append(segment)
    return False
