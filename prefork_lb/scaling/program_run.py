"""A run of a program that this process never waits for."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, NamedTuple

from prefork_lb.clock import Clock, monotonic
from prefork_lb.scaling.driver import SHOWN_CHARACTERS


class Result(NamedTuple):
    """How a program has ended."""

    code: int
    output: str
    errors: str  # the end of its standard error; or why it could not run

    @property
    def in_words(self) -> str:
        """Why it has failed."""
        return self.errors or (f"exited with code {self.code}" if self.code >= 0 else f"was killed by signal {-self.code}")


class ProgramRun:
    """One run of a program. The program is killed when it takes longer than `timeout_s`."""

    def __init__(self, arguments: Sequence[str], timeout_s: float, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._ends_at = clock() + timeout_s
        self._output, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._result: Result | None = None
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors, start_new_session=True)
        except OSError as exc:
            self._process = None
            self._result = Result(127, "", f"{arguments[0]}: {exc.strerror}")

    def result(self) -> Result | None:
        """How it has ended; None: it still runs. To be asked now and then: this also kills a run that takes too long."""
        if self._result is None and self._process is not None:
            if self._process.poll() is not None:
                errors = _text_of(self._errors)[-SHOWN_CHARACTERS:]
                self._result = Result(self._process.returncode, _text_of(self._output), errors)
            elif self._clock() >= self._ends_at:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                self._result = Result(-signal.SIGKILL, "", f"has not ended within {self._timeout_s:g} s")
        if self._result is not None:
            self._output.close()
            self._errors.close()
        return self._result


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()
