"""Servers that are units of systemd, instances of a template. systemd starts, watches and ends them; the driver asks systemctl.

What systemd knows is asked for about once a second, for all units at once. A unit has ended when systemd says so in an answer to
a question that was asked after its start was over.
"""
from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.clock import Clock, monotonic
from prefork_lb.scaling.addresses import Addresses
from prefork_lb.scaling.driver import Ended, Running, StartFailed
from prefork_lb.scaling.program_run import ProgramRun, Result

_LOOK_S = 1.0
_TIMEOUT_S = 10.0  # of a question
_WAIT_S = 2.0  # for the answer when units are taken up: workers kill a controller that stands still for 10 s
_SHOW = "--property=Id,ActiveState,SubState,Result,ExecMainStatus,MemoryCurrent,CPUUsageNSec,ActiveEnterTimestampMonotonic"
_OVER = ("inactive", "failed")

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """How a server is started."""

    unit: str  # with {n} or {port}
    addresses: Addresses
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0


class SystemdDriver:
    """See `driver.Driver`."""

    def __init__(self, settings: UnitSettings, clock: Clock = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._units: dict[int, _Unit] = {}
        self._question: ProgramRun | None = None
        self._asked_for: list[_Unit] = []  # in the question
        self._ask_at = 0.0

    def use(self, settings: UnitSettings) -> None:
        """Start servers so from now on."""
        self._settings = settings

    def start(self, n: int) -> None:
        name, address = self._named(n)
        # Longer than the fleet waits: it stops a late unit. systemd goes on with the start, also when systemctl is killed.
        timeout_s = self._settings.start_timeout_s + self._settings.stop_timeout_s + _TIMEOUT_S
        self._units[n] = _Unit(name, address, ProgramRun(["systemctl", "start", name], timeout_s, self._clock))

    def address(self, n: int) -> str:
        return self._units[n].address

    def last_lines(self, n: int) -> str:
        return ""  # the journal has them

    def memory(self, n: int) -> int | None:
        return _number(self._units[n].shown.get("MemoryCurrent", ""))

    def cpu_s(self, n: int) -> float | None:
        nanoseconds = _number(self._units[n].shown.get("CPUUsageNSec", ""))
        return nanoseconds / 1e9 if nanoseconds is not None else None

    def stop(self, n: int, hard: bool) -> None:
        unit = self._units[n]
        what = ["kill", "--signal=KILL"] if hard else ["stop"]
        # A unit's own TimeoutStopSec may be longer than ours: then it is killed by the fleet.
        unit.stops.append(ProgramRun(["systemctl", *what, unit.name], self._settings.stop_timeout_s + _TIMEOUT_S, self._clock))

    def ended(self) -> list[Ended]:
        self._look()
        found = []
        for n, unit in list(self._units.items()):
            if (why := unit.why_over()) is not None:
                found.append(Ended(n, why))
                del self._units[n]
        return found

    def adopt(self) -> dict[int, Running]:
        """Raises OSError and subprocess.SubprocessError when systemd cannot be asked."""
        pattern = self._settings.unit.replace("{n}", "*").replace("{port}", "*")
        listed = _ask(["list-units", "--plain", "--no-legend", "--full", "--state=active,activating,reloading", pattern])
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        numbers = {name: n for name in names if (n := self._number_of(name)) is not None}
        for shown in _blocks(_ask(["show", _SHOW, *numbers])) if numbers else []:
            if (n := numbers.get(shown.get("Id", ""))) is not None:
                self._units[n] = unit = _Unit(*self._named(n), None)
                unit.shown = shown
        now = self._clock()
        return {n: Running(unit.address, (_number(unit.shown.get("ActiveEnterTimestampMonotonic", "")) or 0) / 1e6 or now)
                for n, unit in self._units.items()}

    def close(self) -> None:
        names = [unit.name for unit in self._units.values()]
        try:
            # A unit that has just ended cannot be stopped either. So a failure is told when one of the units goes on.
            if names and (why := _refusal(names)) and (left := _going_on(names)):
                log.error("units of the instance that has ended could not be stopped: %s: %s", ", ".join(left), why)
        except (OSError, subprocess.SubprocessError) as exc:
            log.error("units of the instance that has ended could not be stopped: %s", exc)

    @property
    def is_closed(self) -> bool:
        return True  # that is systemd's

    def _named(self, n: int) -> tuple[str, str]:
        """Unit and address of a server. Raises StartFailed."""
        address = self._settings.addresses.of(n)
        if address is None:
            raise StartFailed(f"server {n} has no address: there are {self._settings.addresses.count}")
        return self._settings.unit.replace("{n}", str(n)).replace("{port}", str(address.port)), str(address)

    def _number_of(self, name: str) -> int | None:
        before, what, behind = re.split(r"(\{n\}|\{port\})", self._settings.unit, maxsplit=1)
        found = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(behind)}", name)
        if found is None:
            return None
        n = int(found[1]) - (self._settings.addresses.first - 1 if what == "{port}" else 0)
        return n if n > 0 and self._settings.addresses.of(n) is not None else None

    def _look(self) -> None:
        """Begin with a question, or take over the answer."""
        if self._question is not None:
            answer = self._question.result()
            if answer is None:
                return
            self._question = None
            self._take_over(answer)
        elif self._units and self._clock() >= self._ask_at:
            self._ask_at = self._clock() + _LOOK_S
            self._asked_for = [unit for unit in self._units.values() if unit.is_started()]
            if self._asked_for:
                names = [unit.name for unit in self._asked_for]
                for unit in self._asked_for:
                    unit.note_question()
                self._question = ProgramRun(["systemctl", "show", _SHOW, *names], _TIMEOUT_S, self._clock)

    def _take_over(self, answer: Result) -> None:
        if answer.code:
            log.error("systemd cannot be asked for the units of servers: %s", answer.in_words)
            return
        shown = {block.get("Id"): block for block in _blocks(answer.output)}
        for unit in self._asked_for:
            if unit.name in shown:
                unit.take_over(shown[unit.name])


class _Unit:
    """A server."""

    def __init__(self, name: str, address: str, start: ProgramRun | None) -> None:
        self.name, self.address = name, address
        self.shown: dict[str, str] = {}  # by systemd, of a moment after the start
        self.stops: list[ProgramRun] = []
        self._start = start
        # A unit that has just ended cannot be stopped either. So a failed stop is told when an answer to a later question shows
        # that the unit runs.
        self._failed_stops: list[str] = []
        self._asked_about = 0  # so many of these are older than the question

    def is_started(self) -> bool:
        """Whether its start is over, and was good."""
        result = self._start.result() if self._start is not None else Result(0, "", "")
        return result is not None and result.code == 0

    def note_question(self) -> None:
        """systemd is asked for this unit now."""
        self._asked_about = len(self._failed_stops)

    def take_over(self, shown: dict[str, str]) -> None:
        """The answer."""
        self.shown = shown
        if not self._is_over():
            for why in self._failed_stops[:self._asked_about]:
                log.error("%s could not be stopped: %s", self.name, why)
        del self._failed_stops[:self._asked_about]

    def _is_over(self) -> bool:
        return self.shown.get("ActiveState") in _OVER

    def why_over(self) -> str | None:
        """Why it has ended; None: it has not."""
        for stop in list(self.stops):
            if (result := stop.result()) is not None:
                self.stops.remove(stop)
                if result.code:
                    self._failed_stops.append(result.in_words)
        start = self._start.result() if self._start is not None else None
        if start is not None and start.code:
            return f"{self.name} could not be started: {start.in_words}"
        if not self._is_over():
            return None
        how = "ended"
        if (outcome := self.shown.get("Result", "")) != "success":
            how = f"ended with the result {outcome}, status {self.shown.get('ExecMainStatus', '0')}"
        return f"{self.name} {how}; its journal says more"


def _ask(arguments: Sequence[str], timeout_s: float = _WAIT_S) -> str:
    return subprocess.run(["systemctl", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=timeout_s, text=True).stdout


def _refusal(names: Sequence[str]) -> str:
    """Have these units stopped; what systemctl says when it cannot have all of them stopped."""
    try:
        _ask(["stop", "--no-block", *names], _TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        return str(exc.stderr).strip() or str(exc)
    return ""


def _going_on(names: Sequence[str]) -> list[str]:
    """Those of these units that neither have ended nor are to: no job of systemd's is there for them."""
    blocks = _blocks(_ask(["show", f"{_SHOW},Job", *names], _TIMEOUT_S))
    return [block["Id"] for block in blocks
            if "Id" in block and block.get("ActiveState") not in (*_OVER, "deactivating") and block.get("Job", "0") == "0"]


def _blocks(output: str) -> list[dict[str, str]]:
    """What `systemctl show` says of several units, with an empty line between two."""
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.split("\n\n")]


def _number(text: str) -> int | None:
    """A number, unless systemd does not know it: "[not set]", or the largest number of 64 bits."""
    return int(text) if text.isdigit() and int(text) < 1 << 63 else None
