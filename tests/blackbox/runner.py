"""Runs cases against a proxy: `run_case` for one, `run_suite` for all, many at a time where they allow it."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .case import (
    TOKEN,
    AwaitBytes,
    AwaitOrigin,
    AwaitOriginClosed,
    AwaitReplies,
    Case,
    HalfClose,
    Leave,
    OriginCloses,
    Pause,
    Reconnect,
    Release,
    Send,
    Step,
)
from .checks import well_formed
from .client import Client
from .origin import Origin, Record, expand
from .outcome import Outcome
from .wire import Message

STEP_WAIT_S = 5.0
SETTLE_S = 0.08  # how long surplus bytes, or a smuggled request, may take to show


@dataclass(frozen=True)
class Verdict:
    """A case, what was seen, and what is wrong with that; no problems means passed."""

    case: Case
    outcome: Outcome
    problems: list[str]
    seconds: float


class _Play:
    """One case under way."""

    def __init__(self, case: Case, port: int, origin: Origin, record: Record) -> None:
        self.case, self.port, self.origin, self.record = case, port, origin, record
        self.outcome = Outcome()
        self.client = Client(port, case.methods, self.outcome, origin.changed)
        self._unsent = False

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = STEP_WAIT_S) -> bool:
        with self.origin.changed:
            met = self.origin.changed.wait_for(condition, seconds)
        if not met and what:
            self.outcome.timeline.append(f"ran out of time: {what}")
        return met

    def ended(self) -> bool:
        return self.outcome.closed != "open"

    def do(self, step: Step) -> None:
        if isinstance(step, Send):
            if not self._unsent:
                self._unsent = not self.client.send(expand(step.data, self.record.word), step.piece, step.pause_s)
        elif isinstance(step, Pause):
            time.sleep(step.seconds)
        elif isinstance(step, AwaitReplies):
            self.wait(str(step), lambda: len(self.outcome.whole_replies()) >= step.count or self.ended())
        elif isinstance(step, AwaitBytes):
            self.wait(str(step), lambda: step.data in self.client.source.seen or self.ended())
        elif isinstance(step, AwaitOrigin):
            self.wait(str(step), lambda: len(self.record.requests) >= step.count or self.ended())
        elif isinstance(step, AwaitOriginClosed):
            self.wait(str(step), lambda: self.record.closed > 0)
        elif isinstance(step, Release):
            with self.origin.changed:
                self.record.released = True
                self.origin.changed.notify_all()
        elif isinstance(step, OriginCloses):
            self.origin.drop_connections()
        elif isinstance(step, HalfClose):
            self.client.half_close()
        elif isinstance(step, Leave):
            self.client.leave()
        elif isinstance(step, Reconnect):
            self.client.finish()
            self.outcome.closed, self.outcome.leftover, self._unsent = "open", b"", False
            self.client = Client(self.port, self.case.methods, self.outcome, self.origin.changed)


def run_case(case: Case, proxy_port: int, origin: Origin) -> Outcome:
    """Play one case against the proxy on that port, which has `origin` as its only server."""
    if case.alone:
        origin.drop_connections()
        origin.take_strays()
    record = origin.expect(case.scripts)
    play = _Play(case, proxy_port, origin, record)
    for step in case.steps:
        play.do(step)
    if not any(isinstance(step, Leave) for step in case.steps):
        play.wait("", lambda: len(play.outcome.whole_replies()) >= case.replies or play.ended())
        play.wait("", play.ended, case.close_wait_s if case.close_wait_s else SETTLE_S)
    if play.ended() or not case.close_wait_s:
        time.sleep(SETTLE_S)
    play.client.finish()
    outcome = play.outcome
    outcome.origin_closed = record.closed
    with origin.changed:
        outcome.requests = list(record.requests)
    for message in outcome.requests:
        _put_mark_back(message, record.word)
    if case.alone:
        outcome.strays = origin.take_strays()
    return outcome


def _put_mark_back(message: Message, word: bytes) -> None:
    """Expectations are written with the mark in place of the case's word."""
    message.start = tuple(part.replace(word, TOKEN) for part in message.start)
    message.fields = [(name, value.replace(word, TOKEN)) for name, value in message.fields]
    if len(message.body) < 1 << 18:
        message.body = message.body.replace(word, TOKEN)


def judge(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with an outcome."""
    lines = ([] if case.lax else well_formed(outcome)) + outcome.timeline
    if len(outcome.replies) > case.replies:
        lines.append(f"{len(outcome.replies)} responses to {case.replies} requests")
    return lines + [line for check in case.expect for line in check.problems(outcome)]


def _verdict(case: Case, proxy_port: int, origin: Origin) -> Verdict:
    began = time.monotonic()
    try:
        outcome = run_case(case, proxy_port, origin)
    except OSError as error:  # no connection to the proxy at all
        return Verdict(case, Outcome(), [f"no connection: {error}"], time.monotonic() - began)
    return Verdict(case, outcome, judge(case, outcome), time.monotonic() - began)


def run_suite(cases: Iterable[Case], proxy_port: int, origin: Origin, at_once: int = 8) -> list[Verdict]:
    """All cases; those that need the proxy to themselves come last, one by one. In the order of the cases."""
    everything = list(cases)
    shared = [case for case in everything if not case.alone]
    with ThreadPoolExecutor(at_once) as threads:
        verdicts = dict(zip((case.name for case in shared),
                            threads.map(lambda case: _verdict(case, proxy_port, origin), shared), strict=True))
    for case in everything:
        if case.alone:
            verdicts[case.name] = _verdict(case, proxy_port, origin)
    return [verdicts[case.name] for case in everything]


__all__ = ["Verdict", "judge", "run_case", "run_suite"]
