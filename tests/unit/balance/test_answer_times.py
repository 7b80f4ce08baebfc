"""Policies by the times of answers, a step at a time: who is slow, who is tried, who is back."""
from __future__ import annotations

import pytest

from prefork_lb.balance.answer_times import MOST_RATIO, ONE, level_of, microseconds_of, ratio_of
from prefork_lb.balance.policy import Policy, PolicyOptions
from prefork_lb.clock import ManualClock
from tests.unit.balance.candidates import REQUEST, Backend, backends, fresh_memory, new_policy

MS = 1e-3


class Site:
    """Servers, one request at a time, on a clock that stands still but for them."""

    def __init__(self, policy: str, *weights: int, load: str = "connections", seed: int = 1) -> None:
        self.clock = ManualClock(1000.0)
        self.servers: list[Backend] = backends(*weights)
        self.memory = fresh_memory()
        self.policy: Policy = new_policy(policy, seed, self.memory, self.servers, PolicyOptions(load=load), self.clock)

    def send(self) -> Backend:
        """A request that is not answered yet."""
        picked = self.policy.pick(self.servers, REQUEST)
        server = next(each for each in self.servers if each is picked)
        self.policy.sent(server)  # type: ignore[attr-defined]
        server.in_flight += 1
        return server

    def answer(self, server: Backend, seconds: float, is_failure: bool = False) -> None:
        server.in_flight -= 1
        self.policy.answered(server, seconds, is_failure)  # type: ignore[attr-defined]

    def exchange(self, times_s: dict[str, float], failing: str = "") -> str:
        server = self.send()
        seconds = times_s.get(server.name, 30 * MS)
        self.clock.advance(seconds)
        self.answer(server, seconds, server.name == failing)
        return server.name

    def exchanges(self, count: int, times_s: dict[str, float] | None = None, failing: str = "") -> str:
        return "".join(self.exchange(times_s or {}, failing) for _ in range(count))


@pytest.mark.parametrize("us", [1, 2, 3, 1000, 30_000, 30_001, 65_536, 10**9])
def test_a_level_and_back_is_the_same_time_to_a_thousandth(us: int) -> None:
    assert abs(microseconds_of(level_of(us)) - us) <= max(1, us // 1000)
    assert level_of(2 * us) - level_of(us) == ONE
    assert level_of(0) == level_of(-5) == 0


def test_a_ratio_is_that_of_the_times_and_bounded() -> None:
    assert [ratio_of(ONE * power) for power in (1, 2, 3)] == [2, 4, 8]
    assert ratio_of(ONE * 40) == 1 << MOST_RATIO


@pytest.mark.parametrize("policy", ["peak-ewma", "least-time"])
def test_alike_servers_take_strict_turns(policy: str) -> None:
    site = Site(policy, 1, 1, 1)
    assert site.exchanges(30) == "abc" * 10


@pytest.mark.parametrize("policy", ["peak-ewma", "least-time"])
def test_a_server_that_becomes_slow_is_left_but_for_a_trial_a_second(policy: str) -> None:
    site = Site(policy, 1, 1, 1)
    site.exchanges(30)
    site.exchanges(60, {"b": 0.5})
    begun = site.clock.now
    names = site.exchanges(300, {"b": 0.5})
    assert 1 <= names.count("b") <= (site.clock.now - begun) + 1
    if policy == "peak-ewma":
        assert abs(names.count("a") - names.count("c")) <= 2
    site.clock.advance(1.0 if policy == "peak-ewma" else 10.0)
    names = site.exchanges(60)
    assert names.count("b") >= 15, "the trial was good: it is back"


@pytest.mark.parametrize("policy", ["peak-ewma", "least-time"])
def test_failing_fast_counts_as_slow(policy: str) -> None:
    site = Site(policy, 1, 1, 1)
    site.exchanges(30)
    names = site.exchanges(200, {"b": 0.5 * MS}, failing="b")
    assert names.count("b") <= 12


def test_a_silent_server_is_slow_before_it_has_answered_anything() -> None:
    site = Site("peak-ewma", 1, 1, 1)
    site.exchanges(30)
    stuck = site.send()
    site.clock.advance(0.5)
    names = site.exchanges(10)
    assert stuck.name not in names
    # Trials of it come ever more seldom, since it answers none of them.
    site.clock.advance(10)
    assert site.send() is stuck
    site.clock.advance(1.5)
    assert stuck.name not in site.exchanges(20)


def test_a_slow_server_serves_when_all_others_have_that_much_more_to_do() -> None:
    site = Site("peak-ewma", 1, 1)
    site.exchanges(20)
    site.exchanges(40, {"b": 0.3})
    names = "".join(site.send().name for _ in range(40))
    assert names.count("b") in range(1, 12) and names[:2] == "aa"


def test_one_request_given_up_early_says_nothing_and_one_given_up_late_does() -> None:
    site = Site("peak-ewma", 1, 1)
    site.exchanges(20)
    times = site.policy.times  # type: ignore[attr-defined]
    now = int(site.clock.now * 1e6)
    before = times.microseconds(site.servers[0], now)
    times.left(0, 1000, now)
    assert times.microseconds(site.servers[0], now) == before
    times.left(0, 10**7, now)
    assert times.microseconds(site.servers[0], now) > before


@pytest.mark.parametrize("load", ["peak-ewma", "least-time"])
def test_power_of_two_by_times_takes_the_quicker_of_two_and_tries_the_slow_one(load: str) -> None:
    site = Site("power-of-two", 1, 1, load=load)
    site.exchanges(40)
    site.exchanges(40, {"b": 0.5})
    begun = site.clock.now
    names = site.exchanges(500, {"b": 0.5})
    assert 1 <= names.count("b") <= site.clock.now - begun + 1
    assert Site("power-of-two", 1, load=load).exchanges(3) == "aaa"


def test_least_time_goes_by_weights_and_differences_of_20_ms() -> None:
    site = Site("least-time", 3, 1)
    names = "".join(site.send().name for _ in range(8))
    assert names.count("a") == 6, "no times yet: by load and weight"
    site = Site("least-time", 1, 1)
    site.exchanges(60, {"b": 50 * MS})
    assert site.exchanges(20, {"b": 50 * MS}).count("a") == 20
