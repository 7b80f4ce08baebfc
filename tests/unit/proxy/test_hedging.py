"""What a hedged request says of its two servers, and where the exchange goes on when both failed."""
from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from prefork_lb.errors import BadResponse, ConnectTimeout
from prefork_lb.net.address import Address
from prefork_lb.net.stream import Stream, StreamTimeout, Watched
from prefork_lb.proxy.attempt import Timeouts
from prefork_lb.shared.states import States
from prefork_lb.upstream.retries import RetryRules
from tests.support.ports import silent_address
from tests.support.waiting import wait_until
from tests.unit.proxy.loopback import DEADLINE_S, Connection, ScriptedServer
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer, refusing

RULES = RetryRules(attempts=3, hedge=True, backoff_s=0)
HEDGE_AFTER_S = 0.02


class Course:
    """Servers of which the first does nothing before `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def slow(self, then: Callable[[Connection], None]) -> Callable[[Connection], None]:
        def script(connection: Connection) -> None:
            connection.head()
            assert self.go_on.wait(DEADLINE_S)
            then(connection)

        return script

    def quick(self, then: Callable[[Connection], None]) -> Callable[[Connection], None]:
        """Does it at once, and then it is the slow one's turn."""

        def script(connection: Connection) -> None:
            connection.head()
            then(connection)
            self.go_on.set()

        return script


def say(status: int, text: bytes = b"") -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text))

    return script


def reset(connection: Connection) -> None:
    connection.reset()


def hedging_rig(*addresses: Address, rules: RetryRules = RULES, timeouts: Timeouts | None = None) -> Rig:
    rig = Rig(*addresses, rules=rules, timeouts=timeouts)
    rig.pool.hedge_after_s = HEDGE_AFTER_S
    return rig


def streaks(rig: Rig) -> list[int]:
    """Failures in a row, by server."""
    return list(States(rig.ledger.segment).streak[:len(rig.servers)])


def when_the_second_has_failed(rig: Callable[[], Rig], then: Callable[[Connection], None]) -> Callable[[Connection], None]:
    """What the first server does, when the balancer has noted a failure of the second."""

    def script(connection: Connection) -> None:
        connection.head()
        wait_until(lambda: streaks(rig())[1] == 1, "the second one has failed", DEADLINE_S, every=0.005)
        then(connection)

    return script


def when_the_second_is_claimed(rig: Callable[[], Rig], then: Callable[[Connection], None]) -> Callable[[Connection], None]:
    """What the first server does, when the balancer is about to connect to the second."""

    def script(connection: Connection) -> None:
        connection.head()
        wait_until(lambda: rig().in_flight[1] == 1, "the second one is claimed", DEADLINE_S, every=0.005)
        then(connection)

    return script


def is_slow_at_once(streams: Sequence[Stream], timeout_s: float, watched: Watched) -> Stream | None:
    raise StreamTimeout


def at(address: str) -> Address:
    host, _, port = address.rpartition(":")
    return Address(host, int(port))


def test_when_both_fail_neither_is_asked_again() -> None:
    course = Course()
    with ScriptedServer(course.slow(reset)) as one, ScriptedServer(course.quick(reset)) as two, \
            ScriptedServer(answer(b"third")) as three, hedging_rig(one.address, two.address, three.address) as rig:
        assert rig.fetch() == (200, b"third")
        assert (one.accepted, two.accepted, three.accepted) == (1, 1, 1)
        assert streaks(rig) == [1, 1, 0] and rig.in_flight == [0, 0, 0]
        assert rig.ledger.retries_under_way(0) == 0


def test_a_second_server_that_refuses_is_not_asked_again_either() -> None:
    with ScriptedServer(when_the_second_has_failed(lambda: rig, reset)) as one, ScriptedServer(answer(b"third")) as three, \
            hedging_rig(one.address, refusing(), three.address) as rig:
        assert rig.fetch() == (200, b"third")
        assert streaks(rig) == [1, 1, 0] and rig.in_flight == [0, 0, 0]


def test_both_count_as_attempts() -> None:
    course = Course()
    rules = dataclasses.replace(RULES, attempts=2)
    with ScriptedServer(course.slow(reset)) as one, ScriptedServer(course.quick(reset)) as two, \
            ScriptedServer(answer(b"third")) as three, hedging_rig(one.address, two.address, three.address, rules=rules) as rig:
        with pytest.raises(BadResponse):
            rig.exchange(request())
        assert three.accepted == 0 and rig.in_flight == [0, 0, 0]


def test_what_the_first_server_says_ends_the_connect_to_the_second() -> None:
    """One that drops packets must not hold up an answer that is there, however long answers take, and has not failed."""
    minute = Timeouts(connect=60, response=60, idle=60)

    with silent_address() as silent, ScriptedServer(when_the_second_is_claimed(lambda: rig, say(200, b"first"))) as one, \
            hedging_rig(one.address, at(silent), timeouts=minute) as rig:
        rig.pool.hedge_after_s = 30
        rig.engine._settings = dataclasses.replace(rig.settings, wait_any=is_slow_at_once)
        began = time.monotonic()
        assert rig.fetch() == (200, b"first")
        assert time.monotonic() - began < 20
        assert streaks(rig) == [0, 0] and rig.in_flight == [0, 0] and rig.ledger.retries_under_way(0) == 0


def test_when_the_budget_is_spent_the_second_server_is_not_asked() -> None:
    with ScriptedServer(answer(b"first")) as one, ScriptedServer(answer(b"second")) as two, \
            hedging_rig(one.address, two.address) as rig:
        while rig.pool.budget.take(is_hedge=True):
            pass
        rig.engine._settings = dataclasses.replace(rig.settings, wait_any=is_slow_at_once)
        assert rig.fetch() == (200, b"first")
    assert two.accepted == 0  # its thread has ended, and has taken what came


def test_the_second_server_may_be_asked_again_when_the_first_broke_off_meanwhile() -> None:
    times = Timeouts(connect=0.3, response=DEADLINE_S, idle=DEADLINE_S)
    with silent_address() as silent, ScriptedServer(when_the_second_is_claimed(lambda: rig, reset)) as one, \
            hedging_rig(one.address, at(silent), timeouts=times) as rig:
        with pytest.raises(ConnectTimeout):
            rig.exchange(request())
        assert streaks(rig) == [1, 1] and rig.in_flight == [0, 0]


def test_a_second_server_that_had_all_its_time_to_accept_has_failed() -> None:
    times = Timeouts(connect=0.05, response=DEADLINE_S, idle=DEADLINE_S)
    with silent_address() as silent, ScriptedServer(when_the_second_has_failed(lambda: rig, say(200))) as one, \
            hedging_rig(one.address, at(silent), timeouts=times) as rig:
        assert rig.fetch()[0] == 200
        assert streaks(rig) == [0, 1]


STATUSES = dataclasses.replace(RULES, statuses=frozenset({503}))


def test_a_quick_refusal_of_the_second_server_is_not_the_answer_while_the_first_may_have_a_better_one() -> None:
    with ScriptedServer(when_the_second_has_failed(lambda: rig, say(200, b"first"))) as one, \
            ScriptedServer(Course().quick(say(503, b"busy"))) as two, \
            hedging_rig(one.address, two.address, rules=STATUSES) as rig:
        assert rig.fetch() == (200, b"first")
        assert rig.in_flight == [0, 0] and streaks(rig) == [0, 1]


@pytest.mark.parametrize("then", [reset, say(503, b"busy, too")], ids=["fails", "refuses, too"])
def test_when_neither_has_a_good_answer_the_third_is_asked(then: Callable[[Connection], None]) -> None:
    course = Course()
    with ScriptedServer(course.slow(then)) as one, ScriptedServer(course.quick(say(503, b"busy"))) as two, \
            ScriptedServer(answer(b"third")) as three, \
            hedging_rig(one.address, two.address, three.address, rules=STATUSES) as rig:
        assert rig.fetch() == (200, b"third")
        assert (one.accepted, two.accepted, three.accepted) == (1, 1, 1)
        assert rig.in_flight == [0, 0, 0] and rig.ledger.retries_under_way(0) == 0


def test_the_only_answer_there_is_goes_to_the_client() -> None:
    course = Course()
    with ScriptedServer(course.slow(reset)) as one, ScriptedServer(course.quick(say(503, b"busy"))) as two, \
            hedging_rig(one.address, two.address, rules=STATUSES) as rig:
        assert rig.fetch() == (503, b"busy")
        assert rig.in_flight == [0, 0]
