"""What the policies have in common that go by the times of answers."""
from __future__ import annotations

from prefork_lb.balance.answer_times import AnswerTimes, ratio_of
from prefork_lb.balance.policy import Candidate, PolicySetup

_STEP_US = 20_000  # nginx's: times are compared in steps of 20 ms


class TimedPolicy:
    """Has the times, which a worker finds as `times`; simulations call `sent` and `answered`."""

    def __init__(self, setup: PolicySetup) -> None:
        self.times = AnswerTimes(setup)
        self._clock = setup.clock

    def now(self) -> int:
        """Microseconds of the clock."""
        return int(self._clock() * 1e6)

    def sent(self, server: Candidate) -> None:
        """A request goes to `server`. For simulations; a worker counts in shared memory what is under way."""
        self.times.began(server.slot, self.now())
        self.times.count(server.slot, 1)

    def answered(self, server: Candidate, seconds: float, is_failure: bool) -> None:
        """It was answered, or failed, after so long. For simulations."""
        self.times.count(server.slot, -1)
        self.times.answered(server.slot, int(seconds * 1e6), self.now(), is_failure)


def peak_ewma_load(server: Candidate, excess: int) -> int:
    """The load by `peak-ewma`, to be divided by the weight; `excess` as of AnswerTimes."""
    return (2 * server.in_flight + 2) * ratio_of(excess) if excess else 2 * server.in_flight + 1


def least_time_load(server: Candidate, microseconds: int) -> int:
    """The load by `least-time`, to be divided by the weight. Times up to the next 20 ms are alike, as in nginx."""
    return (microseconds // _STEP_US + 1) * (server.in_flight + 1)
