"""Servers that come, go, and fill up while requests run."""
from __future__ import annotations

import random

import pytest

from prefork_lb.balance.registry import POLICY_NAMES
from prefork_lb.simulate.simulation import SimulatedServer
from tests.simulation.simulator import Simulation
from tests.unit.balance.candidates import counts

EVEN = ("round-robin", "weighted-round-robin", "least-connections")


@pytest.mark.parametrize("policy", EVEN)
def test_shares_are_even_again_at_once_after_a_server_was_away(policy: str) -> None:
    simulation = Simulation(policy, [1] * 4, seed=1)

    def run(count: int, candidates: list[SimulatedServer]) -> list[int]:
        names = []
        for _ in range(count):
            names.append(simulation.claim(0.001, candidates).name)
            simulation.drain()
        return counts("".join(names), simulation.servers)

    everybody, without_d = simulation.servers, simulation.servers[:3]
    run(401, everybody)
    away = run(300, without_d)
    assert away[3] == 0
    # It left in the middle of a round: each of the others may have been one ahead or behind.
    assert max(away[:3]) - min(away[:3]) <= 2
    # The one that came back may gain one turn for the hundreds that it missed.
    back = run(400, everybody)
    assert max(back) - min(back) <= 2, back


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_only_candidates_are_picked_whatever_comes_and_goes(policy: str) -> None:
    """200 changes of who may be picked, with requests in flight; the simulation checks that each pick is a candidate."""
    rng = random.Random(6)
    simulation = Simulation(policy, [4, 3, 2, 2, 1, 1], seed=6)
    for _ in range(200):
        candidates = [server for server in simulation.servers if rng.random() < 0.5] or simulation.servers
        for _ in range(rng.randrange(1, 20)):
            simulation.advance(simulation.now + rng.expovariate(300))
            key = rng.choice((b"", b"a", b"b", b"c"))
            assert simulation.claim(rng.expovariate(30), candidates, key) in candidates
    simulation.drain()
    assert [server.in_flight for server in simulation.servers] == [0] * 6


def test_a_full_server_is_left_out_and_rejoins_without_a_burst() -> None:
    """The pool takes full servers from the candidates; least connections levels the rest, and then all."""
    limit = 3
    simulation = Simulation("least-connections", [1] * 4, seed=4)
    small = simulation.servers[0]
    for _ in range(40):
        room = [server for server in simulation.servers if server is not small or server.in_flight < limit]
        simulation.claim(1e9, room)
    assert sorted(server.in_flight for server in simulation.servers) == [3, 12, 12, 13]
    small.in_flight = 0  # all of its requests end at once
    for _ in range(12):
        simulation.claim(1e9)
    assert sorted(server.in_flight for server in simulation.servers) == [12, 12, 12, 13]


def test_tied_servers_take_strict_turns_through_a_random_load() -> None:
    """Between two picks of one server, every server that was tied with it all the time is picked exactly once."""
    rng = random.Random(9)
    simulation = Simulation("least-connections", [1] * 6, seed=9)
    last = [0] * 6
    for turn in range(1, 5000):
        simulation.advance(simulation.now + rng.expovariate(400))
        fewest = min(server.in_flight for server in simulation.servers)
        tied = [server.slot for server in simulation.servers if server.in_flight == fewest]
        picked = simulation.claim(rng.expovariate(1 / 0.03)).slot
        assert picked in tied
        assert last[picked] == min(last[slot] for slot in tied), "one that waited longer was passed over"
        last[picked] = turn
