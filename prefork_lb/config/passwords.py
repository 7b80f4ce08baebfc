"""The users and the hashes of their passwords, from their file."""
from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from prefork_lb.wire import grammar

_MOST_BYTES = 4 << 20
# A step of the cost doubles the time of a check: 15 takes about two seconds, 31 days.
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,2})"
                     r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}")
_MOST_KIB = 1 << 20


def read_passwords(path: str) -> Mapping[bytes, bytes]:
    """The hash of each user's password. Empty lines, and those that begin with "#", are passed over.

    Raises ValueError with the place and what is wrong there.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise ValueError(f"{path}: cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path}: longer than {_MOST_BYTES >> 20} MiB, the most that is read")
    found: dict[bytes, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        user, colon, hashed = text.partition(b":")
        if not colon or not user or not grammar.value.fullmatch(user):
            raise ValueError(f"{path}:{number}: no user and hash with a colon between them")
        if user in found:
            raise ValueError(f"{path}:{number}: the user has a line already")
        if not _is_hash(hashed.decode("latin-1")):
            raise ValueError(f"{path}:{number}: the password is no hash that can be checked; expected bcrypt, of cost 15 at "
                             "most, or argon2, such as those of `htpasswd -nB USER`")
        found[user] = hashed
    if not found:
        raise ValueError(f"{path}: no user in it; expected a line `user:hash` for each, such as those of `htpasswd -nB USER`")
    return found


def _is_hash(text: str) -> bool:
    argon2 = _ARGON2.fullmatch(text)
    if argon2 is not None:
        memory, passes, lanes = map(int, argon2.groups())
        return lanes >= 1 and passes >= 1 and 8 * lanes <= memory <= _MOST_KIB
    return _BCRYPT.fullmatch(text) is not None
