"""Least connections with weights: exact when idle, close under load, at most one off in a burst."""
from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from prefork_lb.simulate.service_times import Draw
from tests.simulation.simulator import Outcome, Simulation, exponential, fixed
from tests.unit.balance.candidates import counts

WEIGHTS = (5, 3, 1, 1)
SERVICE_S = 0.030
# 50 requests/s keep 1.5 in flight, 1000 keep 30: from idle most of the time to never.
RATES = (50, 100, 200, 400, 600, 1000)


def under_load(rate: int, service: Draw, requests: int = 12_000) -> Outcome:
    return Simulation("least-connections", WEIGHTS, seed=rate).poisson(rate, requests, service, warm_up=500)


def exact_shares(weights: Sequence[int]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def test_idle_traffic_is_divided_exactly() -> None:
    simulation = Simulation("least-connections", WEIGHTS, seed=1)
    for _ in range(100):
        names = []
        for _ in range(sum(WEIGHTS)):
            names.append(simulation.claim(SERVICE_S).name)
            simulation.drain()
        assert counts("".join(names), simulation.servers) == list(WEIGHTS)


@pytest.mark.parametrize("rate", RATES)
def test_shares_of_even_requests_are_within_two_percent_of_each_servers_own(rate: int) -> None:
    """When all requests take equally long, a share of the picks is a share of the load, and the load follows the weights
    (Sainte-Lague is unbiased). What is left is rounding, most at 250 requests/s: 1.5 % of the light servers' share."""
    for share, exact in zip(under_load(rate, fixed(SERVICE_S)).shares, exact_shares(WEIGHTS), strict=True):
        assert abs(share - exact) <= 0.02 * exact


@pytest.mark.parametrize("rate", RATES)
def test_shares_of_uneven_requests_are_within_two_percent_of_all_traffic(rate: int) -> None:
    """When requests differ in length, light servers of weight 1 are sometimes empty while the heavy one still works on a
    long request; the rule then gives them the next one, and gets a shorter spread for it. Measured over 120 000 requests:
    at most 1.2 points of 100 off (at 200 requests/s: 48.8, 30.0, 10.6, 10.6), which is 6 % of a light server's own share.
    No rule that looks at in-flight counts alone can keep closer without leaving an empty server idle."""
    for share, exact in zip(under_load(rate, exponential(SERVICE_S)).shares, exact_shares(WEIGHTS), strict=True):
        assert abs(share - exact) <= 0.02


def most_off(weights: Sequence[int], size: int, past: random.Random | None) -> float:
    """How far a burst of `size` leaves any server from its exact share, in requests."""
    simulation = Simulation("least-connections", weights, seed=size)
    if past is not None:
        simulation.poisson(past.choice((50, 200, 400, 1000)), past.randrange(1, 150), exponential(SERVICE_S))
        simulation.drain()
    for _ in range(size):
        simulation.claim(service_s=1e9)
    total = sum(weights)
    return max(abs(server.in_flight - size * server.weight / total) for server in simulation.servers)


def bound(weights: Sequence[int]) -> float:
    """How far Sainte-Lague can be off, in requests.

    At every moment there is a level L with c = w L + e, |e| <= 1/2, for each server's count c: that is the rule. Over n
    servers K = W L + sum(e), so c - K w/W = e (1 - p) - p (sum of the others' e), p = w/W; at most (1 - p)/2 + p (n - 1)/2.
    The first pick from idle goes by turns, and can put a server ahead by one on its own.
    """
    share = max(weights) / sum(weights)
    return max(1.0, (1 + share * (len(weights) - 2)) / 2) + 1e-9


@pytest.mark.parametrize("weights", [WEIGHTS, (5, 1, 1), (1, 1, 1, 1), (16, 9, 4, 1), (100, 1), (7, 5, 3, 2, 2, 1), (3, 2)])
def test_a_burst_is_at_most_one_off_for_every_server(weights: Sequence[int]) -> None:
    past = random.Random(17)
    assert bound(weights) < 1.25  # by the formula; what is found is at most 1
    for size in range(1, 101):
        assert most_off(weights, size, None) <= 1 + 1e-9, (size, "from idle")
        assert most_off(weights, size, past) <= 1 + 1e-9, (size, "after a random past")


def test_one_heavy_server_among_many_light_ones_is_off_by_the_formula_and_no_more() -> None:
    """Weights 10 and seven times 1: when all light ones are due at once, seven picks in a row go to them."""
    weights = (10, 1, 1, 1, 1, 1, 1, 1)
    found = max(most_off(weights, size, None) for size in range(1, 101))
    assert 1 < found <= bound(weights) < 2.3


@pytest.mark.parametrize("rate", [50, 200, 600])
def test_a_burst_on_top_of_running_requests_ends_level(rate: int) -> None:
    """The counts after it are as if all had come at once, once there are enough to fill what was uneven."""
    for size in range(30, 100, 7):
        simulation = Simulation("least-connections", WEIGHTS, seed=size)
        simulation.poisson(rate, 300, exponential(SERVICE_S))
        before = [server.in_flight for server in simulation.servers]
        for _ in range(size):
            simulation.claim(service_s=1e9)
        total = sum(server.in_flight for server in simulation.servers)
        ideal = [total * share for share in exact_shares(WEIGHTS)]
        assert all(count <= exact + 1 for count, exact in zip(before, ideal, strict=True)), "the burst is too small to fill"
        for server, exact in zip(simulation.servers, ideal, strict=True):
            assert abs(server.in_flight - exact) <= 1 + 1e-9


@pytest.mark.parametrize("policy", ["weighted-round-robin", "least-connections"])
def test_smooth_and_least_connections_agree_on_idle_shares(policy: str) -> None:
    simulation = Simulation(policy, (7, 2, 1), seed=2)
    names = []
    for _ in range(1000):
        names.append(simulation.claim(SERVICE_S).name)
        simulation.drain()
    assert counts("".join(names), simulation.servers) == [700, 200, 100]
