"""The exit codes of the commands; docs/cli.md has them as a table."""
from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Beside these: 128 + N when the signal N has ended the command."""

    DONE = 0
    FAILED = 1  # the message on stderr says why; `config diff`: there are differences
    USAGE = 2  # also: `config diff` cannot compare
    KEPT = 3  # `reload`: the workers cannot use the new configuration; `roll`: new servers do not come up
