"""A lease: a claim on a server and the connection to it, given back exactly once."""
from __future__ import annotations

from types import TracebackType
from typing import Final

from prefork_lb.errors import Retry, UpstreamError
from prefork_lb.net.stream import Stream
from prefork_lb.shared.ledger import Ledger
from prefork_lb.upstream.answering import Ending
from prefork_lb.upstream.ejection import Trial
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.server import Server

_TOO_MANY_REQUESTS: Final = 429


class Lease:
    """What an exchange holds of a server. Its owner gives it back by `succeed`, `fail` or `abandon`; the first call counts.

    As a context manager it gives itself back if the block did not: an UpstreamError counts as the server's failure, unless a
    kept-alive connection had gone stale. No other error does. After `keep` the response that streams owns the lease.
    """

    __slots__ = ("_begun_us",
                 "_failure", "_kept", "_ledger", "_outcomes", "_penalty_s", "_seen", "is_open", "server", "stream", "trial")

    def __init__(self, server: Server, ledger: Ledger, outcomes: Outcomes, seen: int, trial: Trial | None = None,
                 begun_us: int = 0) -> None:
        """Take over a claim that was made on `server`.

        `seen` is the count of changes (`States.changes`) that the claim took into account. With a `trial` the outcome of this
        lease, and of no other, decides whether the server is back. `begun_us` is when it was claimed, if its answer is awaited
        already. Without, the ledger's lock must be held: the wait begins here in a pool whose policy goes by that.
        """
        self.server = server
        self.stream: Stream | None = None
        self._ledger = ledger
        self._outcomes = outcomes
        self.is_open = True
        self._kept = False
        self._seen = seen
        self.trial = trial
        self._failure: str | None = None  # why the exchange counts as failed; "": as load only; None: it does not
        self._penalty_s = 0.0
        # Microseconds of the monotonic clock; 0: no answer is awaited, or nobody wants to know how long it takes.
        self._begun_us = begun_us
        if not begun_us and outcomes.answering is not None:
            self._begun_us = outcomes.answering.begin(server.slot)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if exc is not None:
            self.end_with(exc)
        elif not self._kept:
            self.fail("no outcome")

    def end_with(self, exc: BaseException) -> None:
        """The exchange ended with this error."""
        # A server is blamed for what it did, and for nothing else: not for what the client did, not for what this host has none
        # left of (OutOfDescriptors), not for a defect of ours or the end of this worker. A defect would eject every server.
        if isinstance(exc, UpstreamError) and exc.retry is not Retry.IF_REUSED:
            self.fail(str(exc))
        else:
            self.abandon()

    def keep(self) -> None:
        """The head of the response came, and the response owns the lease from here on."""
        self._kept = True
        if self.trial is not None and not self._failure:
            self.trial.is_answered = True
        if self._begun_us and self.is_open:
            self._end_wait()

    def _end_wait(self) -> None:
        """The body goes on, and so does the claim; but the server has answered."""
        answering, begun_us = self._outcomes.answering, self._begun_us
        assert answering is not None
        self._begun_us = 0
        answering.end(self.server.slot, begun_us, Ending.ANSWERED if self._failure is None else Ending.FAILED)

    def note_status(self, status: int, penalty_s: float) -> None:
        """The response has this status. It may make the exchange a failure, though the response is well formed.

        Then the exchange counts as load for at least `penalty_s` seconds, if the pool has `ejection.penalty`.
        """
        if status in self._outcomes.failing:
            self._failure, self._penalty_s = f"status {status}", penalty_s
        elif status == _TOO_MANY_REQUESTS:
            self._failure, self._penalty_s = "", penalty_s

    def succeed(self, reusable: bool) -> None:
        """The exchange is over and the server did its part; `reusable`: its connection can serve another one."""
        if not self.is_open:
            return
        if self._failure is not None:
            self._end_failed(reusable)
            return
        self._end(reusable, False)
        if self.trial is not None or self._outcomes.streaks[self.server.slot]:
            self._outcomes.succeeded(self.server, self._seen, self.trial)

    def fail(self, why: str) -> None:
        """The server did not do its part."""
        if self.is_open:
            self._failure = why
            try:
                # While the claim stands: without one a server that was removed gives its slot to another server.
                self._outcomes.note_failure(self.server, why)
            finally:
                self._end_failed(reusable=False)

    def abandon(self) -> None:
        """The exchange ends early, and not because of the server: the client has left, for example. The connection is closed."""
        if not self.is_open:
            return
        if self._failure is not None:
            self._end_failed(False)
            return
        self._end(False, False, Ending.LEFT)
        if self.trial is not None:
            self._outcomes.left(self.trial)

    def _end_failed(self, reusable: bool) -> None:
        """End with the failure that is noted."""
        try:
            self._outcomes.penalise(self.server, self._penalty_s)
        finally:
            self._end(reusable, bool(self._failure), Ending.FAILED)
        if self._failure:
            self._outcomes.failed(self.server, self._failure, self._seen, self.trial)
        else:
            self._outcomes.refused(self.trial)

    def _end(self, reusable: bool, failed: bool, ending: Ending = Ending.ANSWERED) -> None:
        self.is_open = False
        stream, self.stream = self.stream, None
        try:
            if stream is not None:
                if reusable:
                    self.server.idle.put(stream)
                else:
                    stream.close()
        finally:
            if self._begun_us and (answering := self._outcomes.answering) is not None:
                answering.release(self.server.slot, failed, self._begun_us, ending)
            else:
                self._ledger.release(self.server.slot, failed)
            if (queue := self.server.queue) is not None:
                if (own := self.server.own_queue) is not None and own.length:
                    queue = own
                queue.wake()
