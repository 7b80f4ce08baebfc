"""A run of an operator's program that outlives the process that began it: all that is known of it is in files.

    NAME.pid    the process group of the run
    NAME.out    what it writes to standard output; NAME.err: to standard error
    NAME.code   its exit code; written last, and in one step
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefork_lb.scaling.driver import SHOWN_CHARACTERS

_SHELL = ('name=$1; shift; echo $$ >"$name.pid"; "$@" >"$name.out" 2>"$name.err" </dev/null; echo $? >"$name.new"; '
          'mv "$name.new" "$name.code"')
_FILES = ("pid", "out", "err", "new", "code")


class Hook:
    """One program's runs, one at a time."""

    def __init__(self, base: Path) -> None:
        """`base` is the path of its files, without what is behind the dot."""
        self._base = base
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Begin with a run, and forget the one before. Raises OSError."""
        for end in _FILES:
            self._file(end).unlink(missing_ok=True)
        self._file("out").touch()  # so that it is known that there is one, from here on
        self._process = subprocess.Popen(["/bin/sh", "-c", _SHELL, "prefork-lb", str(self._base), *command],
                                         env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    @property
    def has_begun(self) -> bool:
        """Whether there was a run, by this process or by one before."""
        return self._file("out").exists()

    @property
    def begun_at(self) -> float:
        """When it began, or last wrote, in seconds of the epoch."""
        return self._file("pid").stat().st_mtime if self._file("pid").exists() else self._file("out").stat().st_mtime

    def code(self) -> int | None:
        """The exit code of the run; None: it is not over. -1: it was killed, and has none."""
        if self._process is not None:
            self._process.poll()
        text = self._read("code")
        if text:
            return int(text)
        return None if self._group() else int(self._read("code") or -1)  # it may have ended since the look

    def output(self) -> str:
        """What it has printed."""
        return self._read("out")

    def errors(self) -> str:
        """The end of what it has written to standard error."""
        return self._read("err")[-SHOWN_CHARACTERS:]

    def kill(self) -> None:
        """End it at once, with all processes of its group."""
        group = self._group()
        if group:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _group(self) -> int:
        """The process group, as long as the shell of the run lives; 0: it has ended."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else 0
        number = self._read("pid")
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0") if number else []
            if os.fsencode(self._base) in words:
                return int(number)
        return 0

    def _read(self, end: str) -> str:
        try:
            return self._file(end).read_text(errors="replace").strip()
        except OSError:
            return ""

    def _file(self, end: str) -> Path:
        return self._base.with_name(f"{self._base.name}.{end}")
