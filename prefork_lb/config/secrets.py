"""The secrets that sign the cookies of sessions, from their file."""
from __future__ import annotations

from pathlib import Path

LEAST_BYTES = 16
_MOST_LINES = 16


def read_secrets(path: str) -> tuple[bytes, ...]:
    """The secrets in a file, a line each; empty lines are passed over. The first one signs.

    Raises ValueError with the place and what is wrong there.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise ValueError(f"{path}: cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    found: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        secret = line.strip()
        if not secret:
            continue
        if len(secret) < LEAST_BYTES:
            raise ValueError(f"{path}:{number}: the secret has {len(secret)} characters; expected {LEAST_BYTES} or more, such as "
                             "those of `openssl rand -hex 32`")
        if secret in found:
            raise ValueError(f"{path}:{number}: the same secret as in line {found[secret]}")
        found[secret] = number
    if not found:
        raise ValueError(f"{path}: no secret in it; expected one in each line, such as those of `openssl rand -hex 32`")
    if len(found) > _MOST_LINES:
        raise ValueError(f"{path}: {len(found)} secrets; expected {_MOST_LINES} at most")
    return tuple(found)
