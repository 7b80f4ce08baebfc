"""Which address is tried when, on a time that the tests make."""
from __future__ import annotations

import heapq
import socket
from collections.abc import Sequence

import pytest

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.happy_eyeballs import Attempts, Failure, in_order
from prefork_lb.net.name_lookup import Endpoint

TIMED_OUT = ConnectTimeout("no connection")
NEVER = float("inf")


def v4(number: int) -> Endpoint:
    return socket.AF_INET, (f"192.0.2.{number}", 80)


def v6(number: int) -> Endpoint:
    return socket.AF_INET6, (f"2001:db8::{number}", 80)


# -- The order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "ordered"), [
    ([v6(1), v6(2), v6(3), v4(1), v4(2)], [v6(1), v4(1), v6(2), v4(2), v6(3)]),
    ([v4(1), v6(1), v6(2)], [v4(1), v6(1), v6(2)]),
    ([v4(1), v4(2), v4(1)], [v4(1), v4(2)]),
    ([], []),
])
def test_address_families_take_turns(given: list[Endpoint], ordered: list[Endpoint]) -> None:
    assert in_order(given) == ordered


def test_the_address_that_worked_last_goes_first() -> None:
    assert in_order([v6(1), v6(2), v4(1)], v4(1)) == [v4(1), v6(1), v6(2)]


def test_an_address_that_worked_once_and_is_not_the_name_s_any_more_is_not_tried() -> None:
    assert in_order([v4(1)], v4(9)) == [v4(1)]


# -- The attempts --------------------------------------------------------------------------------------------------


class Network:
    """Answers each address after its time: connected, or with a failure; the dial runs on virtual time."""

    def __init__(self, answers: dict[Endpoint, tuple[float, Failure | None]], timeout_s: float = 5.0) -> None:
        self.attempts = Attempts(100.0 + timeout_s)
        self.began: list[tuple[Endpoint, float]] = []  # and when, in seconds from the start
        self.now = 100.0
        self._answers = answers
        self._ends: list[tuple[float, int, Endpoint]] = []

    def dial(self, *so_far: tuple[float, Sequence[Endpoint]]) -> Endpoint:
        """The address that is connected to first. `so_far`: from which second on which addresses are known."""
        while True:
            known = [endpoints for since, endpoints in so_far if self.now >= 100.0 + since]
            self.attempts.update(known[-1], len(known) < len(so_far))
            while (endpoint := self.attempts.due(self.now)) is not None:
                self.began.append((endpoint, round(self.now - 100.0, 3)))
                heapq.heappush(self._ends, (self.now + self._answers[endpoint][0], len(self.began), endpoint))
            if self.attempts.is_over(self.now):
                raise self.attempts.error(TIMED_OUT)
            look_at = self.attempts.look_at(self.now)
            assert look_at > self.now, "a look that finds nothing to do"
            self.now = look_at
            while self._ends and self._ends[0][0] <= look_at:
                self.now, _, endpoint = heapq.heappop(self._ends)
                failure = self._answers[endpoint][1]
                if failure is None:
                    return endpoint
                self.attempts.failed(failure)
                break


def refused(seconds: float = 0.001) -> tuple[float, Failure | None]:
    return seconds, ConnectFailed("refused")


def accepted(seconds: float = 0.001) -> tuple[float, Failure | None]:
    return seconds, None


SILENT: tuple[float, Failure | None] = (NEVER, None)


def test_an_address_that_drops_packets_costs_a_quarter_of_a_second() -> None:
    network = Network({v4(1): SILENT, v4(2): accepted()})
    assert network.dial((0, [v4(1), v4(2)])) == v4(2)
    assert network.began == [(v4(1), 0.0), (v4(2), 0.25)]


def test_a_slow_address_is_not_given_up_when_the_next_one_begins() -> None:
    network = Network({v4(1): accepted(0.4), v4(2): SILENT})
    assert network.dial((0, [v4(1), v4(2)])) == v4(1)
    assert network.now == 100.4


def test_after_a_refusal_the_next_one_begins_at_once() -> None:
    network = Network({v4(1): refused(), v4(2): refused(), v4(3): accepted()})
    assert network.dial((0, [v4(1), v4(2), v4(3)])) == v4(3)
    assert network.now - 100 < 0.01


def test_a_quick_first_address_is_the_only_one_tried() -> None:
    network = Network({v4(1): accepted(0.2), v4(2): accepted()})
    assert network.dial((0, [v4(1), v4(2)])) == v4(1)
    assert [endpoint for endpoint, _ in network.began] == [v4(1)]


def test_with_little_time_every_address_still_gets_its_share() -> None:
    network = Network({v4(1): SILENT, v4(2): SILENT, v4(3): accepted()}, timeout_s=0.06)
    assert network.dial((0, [v4(1), v4(2), v4(3)])) == v4(3)
    assert network.began == [(v4(1), 0.0), (v4(2), 0.02), (v4(3), 0.04)]


def test_many_addresses_are_not_all_asked_at_the_same_moment() -> None:
    """RFC 8305 8: never less than 10 ms between two attempts."""
    endpoints = [v4(number) for number in range(100)]
    network = Network(dict.fromkeys(endpoints, SILENT), timeout_s=0.1)
    with pytest.raises(ConnectTimeout):
        network.dial((0, endpoints))
    assert len(network.began) == 10


def test_addresses_that_a_look_up_gives_meanwhile_are_tried_too() -> None:
    network = Network({v4(1): SILENT, v4(2): accepted()})
    assert network.dial((0, [v4(1)]), (1.0, [v4(2), v4(1)])) == v4(2)
    assert network.now - 100 < 1.1


def test_while_a_look_up_is_under_way_a_refusal_is_not_the_end() -> None:
    network = Network({v4(1): refused(), v4(2): accepted()})
    assert network.dial((0, [v4(1)]), (0.5, [v4(2)])) == v4(2)


def test_when_all_are_refused_the_last_refusal_is_told() -> None:
    network = Network({v4(1): (0.0, ConnectFailed("first")), v4(2): (0.0, ConnectFailed("last"))})
    with pytest.raises(ConnectFailed, match="last"):
        network.dial((0, [v4(1), v4(2)]))
    assert network.now == 100


def test_one_that_stays_silent_makes_it_a_timeout_though_another_refused() -> None:
    network = Network({v4(1): SILENT, v4(2): refused()}, timeout_s=1.0)
    with pytest.raises(ConnectTimeout):
        network.dial((0, [v4(1), v4(2)]))
    assert network.now == 101.0


def test_an_address_for_which_there_was_no_descriptor_may_be_a_good_one() -> None:
    network = Network({v4(1): (0.0, OutOfDescriptors("too many open files")), v4(2): refused()})
    with pytest.raises(OutOfDescriptors):
        network.dial((0, [v4(1), v4(2)]))


def test_without_time_nothing_is_tried() -> None:
    network = Network({v4(1): accepted()}, timeout_s=0.0)
    with pytest.raises(ConnectTimeout):
        network.dial((0, [v4(1)]))
    assert network.began == []
