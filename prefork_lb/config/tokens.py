"""The tokens of the administration interface, from their file."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

LEAST_CHARACTERS = 16
_MOST_TOKENS = 256
ROLES = ("operator", "reader")


class Token(NamedTuple):
    """What one line of the file says."""

    role: str  # operator or reader
    secret: bytes
    name: str  # what changes are logged under


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens in a file, one a line: a role, the token, and a name (none: the role). Empty lines and comments (#)
    are passed over.

    Raises ValueError with the place and what is wrong there; the message never holds a token.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path}: not UTF-8") from exc
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise ValueError(f"{path}: cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    found: dict[bytes, Token] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in ROLES or not 2 <= len(words) <= 3:
            raise ValueError(f"{path}:{number}: not a token's line; expected `operator TOKEN` or `reader "
                             "TOKEN`, and a name if you like")
        secret, name = words[1], words[2] if len(words) == 3 else words[0]
        if len(secret) < LEAST_CHARACTERS or not (secret.isascii() and secret.isprintable()):
            raise ValueError(f"{path}:{number}: the token has {len(secret)} characters; expected {LEAST_CHARACTERS} or more "
                             "of ASCII, such as those of `openssl rand -hex 24`")
        if secret.encode() in found:
            raise ValueError(f"{path}:{number}: the token is there already")
        if len(name) > 40 or not name.isprintable():
            raise ValueError(f"{path}:{number}: the name has {len(name)} characters; expected 40 at most, all printable")
        found[secret.encode()] = Token(words[0], secret.encode(), name)
    if not found:
        raise ValueError(f"{path}: no token in it; expected lines like `operator TOKEN`, with a TOKEN of `openssl rand -hex 24`")
    if len(found) > _MOST_TOKENS:
        raise ValueError(f"{path}: {len(found)} tokens; expected {_MOST_TOKENS} at most")
    return tuple(found.values())
