"""How long the servers of a pool take to answer: told to a policy that goes by it."""
from __future__ import annotations

import enum
import time

from prefork_lb.balance.answer_times import FAILURE, LEVEL, NOISE, POOL_LEVEL, UNANSWERED, WEIGHT, AnswerTimes
from prefork_lb.balance.policy import Policy
from prefork_lb.native.loader import NativeAnswers, native
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.table import PoolSlots


def now_us() -> int:
    """Microseconds of the monotonic clock."""
    return time.monotonic_ns() // 1000


class Ending(enum.IntEnum):
    """How the wait for a response's head ends."""

    ANSWERED = 0
    FAILED = 1  # no answer, or one that says that the server cannot: counts as a slow one, however quick it was
    LEFT = 2  # the client has left, or another server was quicker: it would have taken longer than this


class Answering:
    """Of one pool, in one worker. Instants are microseconds of the monotonic clock."""

    def __init__(self, times: AnswerTimes, ledger: Ledger, slots: PoolSlots) -> None:
        self._times = times
        self._ledger = ledger
        self._slots = slots
        self.native = self._native()
        """The same in the compiled module; None without one."""

    def _native(self) -> NativeAnswers | None:
        module, claims, slots = native(), self._ledger.native_claims, self._slots
        level, heard, picked, back, unanswered = slots.columns[LEVEL:UNANSWERED + 1]
        return module.Answers(
            claims, slots.cells, level, heard, picked, back, unanswered, self._ledger.own_unanswered, POOL_LEVEL, WEIGHT,
            self._times.pool_weight, NOISE, FAILURE) if module is not None and claims is not None else None

    def use(self, servers: int) -> None:
        """The pool has so many servers from now on."""
        self._times.count_servers(servers)
        self.native = self._native()

    def begin(self, slot: int) -> int:
        """A claimed request goes to a server; returns the instant. The ledger's lock must be held."""
        now = now_us()
        self._times.began(slot, now)
        self._ledger.await_answer(slot)
        return now

    def end(self, slot: int, begun_us: int, ending: Ending) -> None:
        """The head of a response has come, and the claim stays while its body does. Takes the lock."""
        now = now_us()
        if self.native is not None and self.native.end(slot, False, begun_us, now, ending):
            return
        with self._ledger.locked():
            self._end(slot, begun_us, now, ending)

    def release(self, slot: int, failed: bool, begun_us: int, ending: Ending) -> None:
        """Take the claim back of a request that waited until now. Takes the lock.

        Raises InvariantError, and changes nothing, when this worker has no claim there.
        """
        now = now_us()
        if self.native is not None and self.native.release(slot, failed, begun_us, now, ending):
            return
        with self._ledger.locked():
            self._end(slot, begun_us, now, ending)
            self._ledger.release_locked(slot, failed)

    def _end(self, slot: int, begun_us: int, now: int, ending: Ending) -> None:
        self._ledger.end_wait(slot)
        if ending is Ending.LEFT:
            self._times.left(slot, now - begun_us, now)
        else:
            self._times.answered(slot, now - begun_us, now, ending is Ending.FAILED)


def answering_of(policy: Policy, ledger: Ledger, slots: PoolSlots) -> Answering | None:
    """What tells this policy of answers; None: it does not go by them."""
    times = getattr(policy, "times", None)
    return Answering(times, ledger, slots) if isinstance(times, AnswerTimes) else None
