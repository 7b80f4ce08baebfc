"""A lease is given back exactly once, whichever way it ends."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork_lb.errors import (
    BadRequest,
    BadResponse,
    ClientGone,
    ConnectFailed,
    InvariantError,
    OutOfDescriptors,
    ResponseTimeout,
    StaleConnection,
    TruncatedBody,
)
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.upstream.lease import Lease
from tests.unit.upstream.parts import NotedStream, new_pool, new_server


class Held:
    """A lease with a connection, and what became of both."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        self._segment = segment
        self.ledger = ledger
        self.server = new_server(3)
        self.stream = NotedStream()
        self.lease: Lease = new_pool(ledger, self.server).lease(_Request(), ())
        self.lease.stream = self.stream

    @property
    def in_flight(self) -> int:
        return self.ledger.totals[3]

    @property
    def failures(self) -> int:
        return self._segment.cells[self._segment.layout.row_array(0, 2).start + 3]

    @property
    def outcome(self) -> tuple[int, int, int, int]:
        """In-flight, failures, times closed, connections kept."""
        return self.in_flight, self.failures, self.stream.closed, len(self.server.idle)


class _Request:
    method, target, client = b"GET", b"/", "192.0.2.1"


@pytest.fixture
def held(segment: Segment, ledger: Ledger) -> Held:
    return Held(segment, ledger)


def test_while_it_is_held_the_claim_stands(held: Held) -> None:
    assert held.outcome == (1, 0, 0, 0)


KEPT, CLOSED, FAILED = (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 1, 0)
ENDINGS: list[tuple[Callable[[Lease], None], tuple[int, int, int, int]]] = [
    (lambda lease: lease.succeed(reusable=True), KEPT),
    (lambda lease: lease.succeed(reusable=False), CLOSED),
    (lambda lease: lease.fail("refused"), FAILED),
    (lambda lease: lease.abandon(), CLOSED),
]


@pytest.mark.parametrize(("end", "outcome"), ENDINGS)
@pytest.mark.parametrize("again", [end for end, _ in ENDINGS])
def test_only_the_first_ending_counts(
    held: Held, end: Callable[[Lease], None], outcome: tuple[int, int, int, int], again: Callable[[Lease], None]
) -> None:
    end(held.lease)
    assert held.outcome == outcome
    again(held.lease)
    with held.lease:
        pass
    assert held.outcome == outcome


def test_left_without_a_word_it_fails(held: Held) -> None:
    with held.lease:
        pass
    assert held.outcome == FAILED


def test_why_there_was_no_answer_is_noted_and_a_failure_by_its_status_is_not(segment: Segment, held: Held) -> None:
    states = States(segment)
    held.lease.note_status(500, 0.0)
    held.lease.succeed(True)
    assert (held.failures, states.failed_at[3]) == (1, 0)
    new_pool(held.ledger, held.server).lease(_Request(), ()).fail("it broke")
    assert states.failed_at[3] > 0
    assert states.failure(3) == "it broke"


def test_why_there_was_no_answer_is_noted_while_the_claim_stands(
    segment: Segment, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a claim on it, a server that was removed gives its slot to another server."""
    in_flight = []

    def note_failure(self: States, slot: int, why: str) -> None:
        in_flight.append(held.in_flight)

    monkeypatch.setattr(States, "note_failure", note_failure)
    held.lease.fail("it broke")
    assert in_flight == [1]
    assert held.outcome == FAILED


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("end", [lambda lease: lease.fail("it broke"), lambda lease: lease.succeed(False), Lease.abandon])
def test_a_failure_counts_as_load_while_the_claim_stands(held: Held, status: int, end: Callable[[Lease], None]) -> None:
    """Without either, a server that was removed gives its slot to another server, which would get the load."""
    found: list[tuple[int, int]] = []

    class Stream(NotedStream):
        def close(self) -> None:
            found.append((held.in_flight, held.ledger.penalties[3]))

    held.lease.stream = Stream()
    held.lease.note_status(status, 0.0)
    end(held.lease)
    assert (found, held.in_flight) == ([(1, 1)], 0)


def test_the_claim_is_given_back_even_if_the_failure_cannot_be_noted(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def note_failure(self: States, slot: int, why: str) -> None:
        raise InvariantError("ours")

    monkeypatch.setattr(States, "note_failure", note_failure)
    with pytest.raises(InvariantError):
        held.lease.fail("it broke")
    assert held.outcome == FAILED


def test_kept_it_stays_until_its_new_owner_ends_it(held: Held) -> None:
    with held.lease as lease:
        lease.keep()
    assert held.outcome == (1, 0, 0, 0)
    held.lease.succeed(reusable=True)
    assert held.outcome == KEPT


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("error", "outcome"), [
    (ConnectFailed("refused"), FAILED),
    (ResponseTimeout("slow"), FAILED),
    (BadResponse("not HTTP"), FAILED),
    (TruncatedBody("short"), FAILED),
    # A defect of ours, and the end of this worker: a request that meets a defect everywhere would eject every server.
    (InvariantError("ours"), CLOSED),
    (ValueError("a bug"), CLOSED),
    (SystemExit(1), CLOSED),
    # Not the server's fault: it may close an idle connection, and clients come and go.
    (StaleConnection("closed"), CLOSED),
    (ClientGone("left"), CLOSED),
    (BadRequest("malformed body"), CLOSED),
    (OutOfDescriptors("too many open files"), CLOSED),
])
def test_an_error_gives_it_back_and_blames_who_did_it(
    held: Held, error: BaseException, outcome: tuple[int, int, int, int], keep: bool
) -> None:
    """Also after `keep`: an error on the way out means that nobody has taken it over."""
    with pytest.raises(type(error)), held.lease as lease:
        if keep:
            lease.keep()
        raise error
    assert held.outcome == outcome


def test_without_a_connection_there_is_only_the_claim(held: Held) -> None:
    held.lease.stream = None
    held.lease.succeed(reusable=True)
    assert held.outcome == (0, 0, 0, 0)


def test_the_claim_is_given_back_even_if_the_connection_cannot_be_closed(held: Held) -> None:
    held.lease.stream = NotedStream(close_fails=True)
    with pytest.raises(OSError, match="close failed"):
        held.lease.fail("refused")
    assert held.in_flight == 0
    held.lease.fail("refused")
    assert held.in_flight == 0


def test_statistics_count_the_request_once(segment: Segment, held: Held) -> None:
    held.lease.fail("refused")
    assert segment.cells[segment.layout.row_array(0, 1).start + 3] == 1
    assert segment.cells[at.H_REPAIRS] == 0
