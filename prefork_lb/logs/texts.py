"""Bytes of heads as they go into lines. They may hold anything above 0x7f, and whatever commands a terminal."""
from __future__ import annotations

from prefork_lb.proxy.logged_text import log_text


def quoted(value: bytes, most: int = 512) -> bytes:
    """A JSON string of at most `most` bytes of the value. UTF-8 is what it means, other bytes become `\\xNN` in the text."""
    if len(value) > most:
        value = value[:most] + b"..."
    if value.isascii() and b'"' not in value and b"\\" not in value and value.decode().isprintable():
        return b'"%b"' % value
    text = value.decode("utf-8", "surrogateescape")
    return b'"%b"' % "".join(map(_json_character, text)).encode()


def _json_character(character: str) -> str:
    if character.isprintable():
        return {'"': '\\"', "\\": "\\\\"}.get(character, character)
    code = ord(character)
    if 0xdc80 <= code <= 0xdcff:
        return f"\\\\x{code - 0xdc00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\u{0xd800 + (code - 0x10000 >> 10):04x}\\u{0xdc00 + (code & 0x3ff):04x}"


def line_text(value: bytes, most: int = 512) -> str:
    """The same in a line of text, between double quotes or not."""
    return log_text((value[:most] + b"..." if len(value) > most else value).decode("latin-1"))
