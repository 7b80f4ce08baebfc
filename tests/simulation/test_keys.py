"""Policies by key under load: what moves, whose share is what, and what one hot key does."""
from __future__ import annotations

import random
from collections import Counter

import pytest

from prefork_lb.balance.policy import PolicyOptions
from tests.simulation.simulator import Simulation
from tests.unit.balance.candidates import AnyRequest, Backend, new_policy

KEYS = 100_000


def homes(policy: str, servers: list[Backend]) -> list[str]:
    """The server of each of 100,000 keys, with nothing in flight."""
    made = new_policy(policy, servers=servers)
    request = AnyRequest()
    found = []
    for number in range(KEYS):
        request.key = b"%d" % number
        found.append(made.pick(servers, request).name)
    return found


@pytest.mark.parametrize("policy", ["hash", "consistent-hash"])
def test_shares_by_weight_are_within_a_few_percent_and_a_server_that_goes_moves_its_own(policy: str) -> None:
    weights = (5, 3, 2, 1, 1)
    servers = [Backend(slot, weight, name=f"10.0.0.{slot}:80") for slot, weight in enumerate(weights)]
    before = homes(policy, servers)
    shares = Counter(before)
    for server in servers:
        exact = KEYS * server.weight / sum(weights)
        # A server with 1 part of 12 has 5461 of the 65,536 parts, sqrt(5461) or 1.4 % more or less; of the keys 1.1 %.
        assert abs(shares[server.name] / exact - 1) < 0.05, shares
    gone = servers[2].name
    after = homes(policy, [server for server in servers if server.name != gone])
    moved = sum(was != now for was, now in zip(before, after, strict=True))
    assert moved == shares[gone], "a key moved that was not its own"


@pytest.mark.parametrize("factor", [1.25, 2.0])
def test_a_hot_key_under_load_fills_no_server_beyond_its_bound(factor: float) -> None:
    """A third of 2,000 requests/s of 30 ms has one key."""
    rng = random.Random(2)
    simulation = Simulation("consistent-hash", [1] * 6, seed=2, options=PolicyOptions(load_factor=factor))
    home = Counter[str]()
    for _ in range(20_000):
        simulation.advance(simulation.now + rng.expovariate(2000))
        hot = rng.random() < 1 / 3
        server = simulation.claim(rng.expovariate(1 / 0.03), key=b"hot" if hot else b"%d" % rng.randrange(10_000))
        total = sum(other.in_flight for other in simulation.servers)
        assert server.in_flight <= total * factor / 6 + 1
        if hot:
            home[server.name] += 1
    # The hot third alone is twice a server's share: with a bound of 1.25 it needs two servers and a little of others.
    (_, most), (_, second), *_ = home.most_common()
    assert (most + second) / home.total() > 0.6


def test_without_a_bound_all_of_a_hot_key_is_on_one_server() -> None:
    simulation = Simulation("consistent-hash", [1] * 6, seed=2, options=PolicyOptions(load_factor=0))
    assert len({simulation.claim(1e9, key=b"hot").name for _ in range(100)}) == 1
