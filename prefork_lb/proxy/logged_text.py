"""What came from outside, as text that a log can hold.

Facts: a value of a head may hold any byte above 0x7f, and what is decoded from one (a path, the name in Authorization) any
byte at all. A log is read by programs line by line, and by people on terminals, which obey control characters: the C0 ones,
and the C1 ones too (U+009B begins a command to a terminal). Most bytes above 0x7f are UTF-8.
"""
from __future__ import annotations

import locale
from collections.abc import Mapping
from typing import Any

_ESCAPED = {ord("\\"): "\\\\", ord('"'): '\\"'}
# A log file has the locale's encoding, and a line that it cannot hold would be lost.
_has_utf8 = locale.getpreferredencoding(False).lower().replace("-", "") == "utf8"


def log_text(text: str) -> str:
    """Text whose characters stand for bytes (latin-1), as it goes into a line of a log between double quotes.

    UTF-8 is shown as what it means. Every byte of anything else that is no printable character becomes `\\xNN`; a double quote
    and a backslash get a backslash in front.
    """
    if text.isascii() and text.isprintable():
        return text if '"' not in text and "\\" not in text else text.translate(_ESCAPED)
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError:  # decoded already
        data = text.encode("utf-8", "surrogateescape")
    # Bytes that are no UTF-8 become surrogates, which are not printable and stand for one byte each.
    return "".join([_shown(character) for character in data.decode("utf-8", "surrogateescape")])


def _shown(character: str) -> str:
    if character.isprintable() and (_has_utf8 or character.isascii()):
        return _ESCAPED.get(ord(character), character)
    return "".join([f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape")])


class LoggedAtoms(dict[str, object]):
    """What gunicorn's access log formats its lines with, in place of its own `SafeAtoms`, which escapes nothing but quotes.

    Values are made printable when the format asks for them, which are few of those that are there. Names of fields are not
    case-sensitive; what is not there is a hyphen.
    """

    def __init__(self, atoms: Mapping[str, object]) -> None:
        super().__init__(atoms)

    def __getitem__(self, name: str) -> object:
        value = self.get(name.lower() if name.startswith("{") else name, "-")
        if not isinstance(value, str):
            return value
        # The name of a user is the one value that gunicorn decodes.
        return log_text(value if name != "u" else value.encode("utf-8", "surrogateescape").decode("latin-1"))


def make_printable(logger: Any) -> None:
    """Have gunicorn's logger write its access log with LoggedAtoms, unless the site has a class of its own for that."""
    wrapper = getattr(logger, "atoms_wrapper_class", None)
    if wrapper is not None and wrapper.__module__ == "gunicorn.glogging":
        logger.atoms_wrapper_class = LoggedAtoms
