"""How long each server of a pool takes to answer, as all workers know it: the average, the silence, and which servers are slow.

Times spread over factors, not over sums: one request in a hundred takes ten times as long as the others, of a server that is as
good as the rest. So the average is taken of the logarithm, where such an answer is one step of many. A level is the logarithm
to base 2 of microseconds, as an integer, `ONE` for each factor of two.
"""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup

POOL_LEVEL = 3  # the cell of the pool's level; 0: nothing is known
LEVEL, HEARD, PICKED, BACK, UNANSWERED = 3, 4, 5, 6, 7  # the columns

ONE = 1 << 16
WEIGHT = 8  # an answer counts for an eighth of its server's level
NOISE = 103_872  # log2(3): a server up to three times slower than the pool is as good as the others
# The level of a server that is back is this part of the noise below the edge. Its slow answers have raised the pool's, which
# falls again: a server at the edge would be slow again at once.
EDGE = 6
STALE_US = 10_000_000  # a server that has not been picked for so long is not known any more
FAILURE = 217_706  # log2(10): a failure counts as an answer ten times slower than all before
MOST_RATIO = 10  # a power of two: no server counts as more than 1024 times slower
TRIAL_US = 1_000_000
MOST_US = 1 << 46
MOST_LEVEL = 46 * ONE


def level_of(microseconds: int) -> int:
    """The logarithm, straight between the powers of two: at most 0.09 of a factor of two off, and the same in every language."""
    value = min(max(1, microseconds), MOST_US)
    power = value.bit_length() - 1
    return (power << 16) + (value << 16 >> power) - ONE


def microseconds_of(level: int) -> int:
    """The time of a level."""
    power, rest = divmod(level, ONE)
    return (ONE + rest) << power >> 16


def ratio_of(excess: int) -> int:
    """How many times slower a server is whose level is so much above the pool's: a whole number, 1024 at most."""
    power, rest = divmod(min(excess, MOST_RATIO * ONE), ONE)
    return (ONE + rest) << power >> 16


class AnswerTimes:
    """The averages of one pool, in shared memory. Used under the ledger's lock; instants are microseconds of the monotonic clock.

    Each answer moves the level of its server, and that of the pool, which is of as many answers for each server. A server is
    slow when its level, or its silence while requests wait for an answer, is more than three times the pool's. The first
    ordinary answer of a slow server brings it back to the edge, so that the next one decides. An answer to a request from before
    that says nothing about the server as it is now.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._cells = setup.memory.cells
        columns = setup.memory.columns
        self._level, self._heard, self._picked, self._back, self._unanswered = columns[LEVEL:UNANSWERED + 1]
        self.count_servers(len(setup.servers))

    def count_servers(self, number: int) -> None:
        """The pool has so many servers: its level is of as many answers of each."""
        self.pool_weight = WEIGHT * max(1, number)

    def excess(self, server: Candidate, now: int) -> int:
        """How far a server is above the pool's level; 0: it is as good as the others."""
        pool, slot = self._cells[POOL_LEVEL], server.slot
        if not pool:
            return 0
        level, heard = self._level[slot], self._heard[slot]
        if heard and self._unanswered[slot] > 0:
            level = max(level, level_of(now - heard))
        return level - pool if level - pool > NOISE else 0

    def is_stale(self, server: Candidate, now: int) -> bool:
        """Whether a policy that prefers quicker servers has not heard of this one for long, and has to try it."""
        return bool(self._level[server.slot]) and now - self._picked[server.slot] >= STALE_US

    def forget(self, server: Candidate) -> None:
        """Take the server for one that answers as the pool does, until it has answered."""
        self._level[server.slot] = 0

    def microseconds(self, server: Candidate, now: int) -> int:
        """How long the server takes to answer; of one that is not known, how long the pool takes, and 0 when nothing is."""
        pool = self._cells[POOL_LEVEL]
        excess = self.excess(server, now)
        return microseconds_of(pool + excess if excess else self._level[server.slot] or pool) if pool else 0

    def due(self, slow: Sequence[Candidate], now: int) -> Candidate | None:
        """The slow server to try now, if there is one: the longest not picked, for a second at least. One that is silent is
        tried the more seldom the longer it has been."""
        found, since = None, now
        for server in slow:
            picked, heard = self._picked[server.slot], self._heard[server.slot]
            pause = TRIAL_US
            if heard and self._unanswered[server.slot] > 0:
                pause = max(pause, (now - heard) // 2)
            if now - picked >= pause and picked < since:
                found, since = server, picked
        return found

    def began(self, slot: int, now: int) -> None:
        """A request goes to a server. Before it is counted in the column of unanswered ones."""
        if self._unanswered[slot] <= 0:
            self._heard[slot] = now
        self._picked[slot] = now

    def count(self, slot: int, number: int) -> None:
        """So many more requests wait for an answer. For memories of one process; in shared memory the ledger counts."""
        self._unanswered[slot] += number

    def answered(self, slot: int, microseconds: int, now: int, is_failure: bool) -> None:
        """A request has been answered, or has failed."""
        self._heard[slot] = now
        if now - microseconds < self._back[slot]:
            return
        pool = self._cells[POOL_LEVEL]
        sample = level_of(microseconds)
        level = self._level[slot] or pool or sample
        if is_failure:
            sample = min(max(sample, max(level, pool) + FAILURE), MOST_LEVEL)
        elif level - pool > NOISE >= sample - pool and pool:
            self._level[slot], self._back[slot] = pool + NOISE - NOISE // EDGE, now
            return
        self._level[slot] = level + (sample - level) // WEIGHT
        self._cells[POOL_LEVEL] = pool + (sample - pool) // self.pool_weight if pool else sample

    def left(self, slot: int, microseconds: int, now: int) -> None:
        """A request has ended before its answer, and not because of the server: the answer would have taken longer than this."""
        sample, level = level_of(microseconds), self._level[slot]
        if level and sample > level and now - microseconds >= self._back[slot]:
            self._level[slot] = level + (sample - level) // WEIGHT
