"""How long a client may keep the proxy waiting for a request's body."""
from __future__ import annotations

from typing import Final

NO_LIMIT: Final = float("inf")


class Patience:
    """Seconds in all, and one more for each so many bytes that come: `body=20,MinRate=500` of Apache's mod_reqtimeout.

    A timeout between two reads alone lets a client that sends a byte a minute stay for hours. Only the time that is spent waiting
    for the client counts: while the server takes what has come, the client's time stands still.
    """

    __slots__ = ("_rate", "left_s")

    def __init__(self, seconds: float, rate: float) -> None:
        """`seconds` 0: no limit; `rate` is in bytes a second."""
        self.left_s = seconds or NO_LIMIT  # what the next wait may take
        self._rate = rate

    def waited(self, seconds: float, received: int) -> None:
        """A wait took so long, and so many bytes came of it."""
        self.left_s += received / self._rate - seconds

    def too_slow(self) -> str:
        """For the log: why a client was given up when nothing was left."""
        return f"the client sent its body more slowly than {self._rate:g} bytes a second"
