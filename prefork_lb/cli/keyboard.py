"""The keys of a terminal, one at a time. Whatever ends the reading, the terminal has its old modes again."""
from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType

_SEQUENCES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page-up", "\x1b[6~": "page-down",
              "\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class Keyboard:
    """Reads keys from a terminal that is in cbreak mode: see `keyboard`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def keys(self, seconds: float) -> list[str]:
        """The keys that were struck, as soon as there are some; empty after so many seconds.

        Keys without a character have names, such as "up". Raises EOFError when the terminal is gone.
        """
        try:
            if not select.select([self._descriptor], [], [], seconds)[0]:
                return []
        except InterruptedError:
            return []
        data = os.read(self._descriptor, 1024)
        if not data:
            raise EOFError("the terminal is gone")
        return split_keys(data.decode(errors="replace"))


def split_keys(text: str) -> list[str]:
    """What a terminal has sent, key by key. Keys that are not known are left out."""
    found = []
    while text:
        known = next((sequence for sequence in sorted(_SEQUENCES, key=len, reverse=True) if text.startswith(sequence)), "")
        if known == "\x1b" and len(text) > 1:  # a key that is not known: ESC [ parameters letter
            rest = text[1:].lstrip("[O").lstrip("0123456789;")
            text = rest[1:]
        elif known:
            found.append(_SEQUENCES[known])
            text = text[len(known):]
        else:
            if text[0].isprintable():
                found.append(text[0])
            text = text[1:]
    return found


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Let the terminal of the standard input send each key at once, and show none. SIGTERM and SIGHUP raise SystemExit."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    handlers = {number: signal.signal(number, end) for number in _ENDS}
    # A program that Ctrl-Z stops would leave its modes to the shell.
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
