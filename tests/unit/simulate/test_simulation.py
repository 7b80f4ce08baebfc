"""The simulation itself: workers, limits, queues, troubles, what policies are told; and the choice among policies."""
from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

import pytest

from prefork_lb.balance.policy import Candidate, PolicyMemory, PolicySetup, RequestInfo
from prefork_lb.balance.registry import make_policy
from prefork_lb.simulate.comparison import Scene, averages, compare, recommend, run_policy
from prefork_lb.simulate.ejection import EjectionModel
from prefork_lb.simulate.figures import PERCENTS, Figures, figures, percentile
from prefork_lb.simulate.load import DescribedLoad
from prefork_lb.simulate.picture import svg
from prefork_lb.simulate.servers import DescribedServer, Trouble
from prefork_lb.simulate.service_times import parse_service_times
from prefork_lb.simulate.simulation import Simulation, simulated


class Last:
    """Picks the last candidate, and notes what it is told."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self.told: list[tuple[str, float, bool, float]] = []

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        return candidates[-1]

    def answered(self, server: Candidate, seconds: float, is_failure: bool) -> None:
        self.told.append((server.name, round(seconds, 6), is_failure, round(self.clock(), 6)))


def simulation(*models: DescribedServer, troubles: Sequence[Trouble] = (),
               queue: tuple[int, float] = (0, 0.0), ejection: EjectionModel | None = None) -> tuple[Simulation, Last]:
    policy = Last()

    def make(clock: Callable[[], float]) -> Last:
        policy.clock = clock
        return policy

    return Simulation(simulated(models), make, troubles, *queue, ejection), policy


def times(found: Simulation) -> list[float]:
    return [round(seconds, 6) for seconds in found.latencies]


def test_a_server_works_on_as_many_requests_as_it_has_workers_and_then_in_order() -> None:
    found, _ = simulation(DescribedServer("a", workers=2))
    for _ in range(5):
        found.claim(1.0)
    found.drain()
    assert times(found) == [1.0, 1.0, 2.0, 2.0, 3.0]
    assert (found.most_in_flight, found.longest_queue) == (5, 3)


def test_a_policy_is_told_of_each_end_on_the_virtual_clock() -> None:
    fails = Trouble("b", 3.0, 4.0, fails_in_s=0.5)
    found, policy = simulation(DescribedServer("a"), DescribedServer("b", workers=1), troubles=[fails])
    found.claim(1.0)
    found.claim(1.0)
    found.advance(3.0)
    found.claim(1.0)
    found.drain()
    assert policy.told == [("b", 1.0, False, 1.0), ("b", 2.0, False, 2.0), ("b", 0.5, True, 3.5)]
    assert (found.failed, times(found)) == (1, [1.0, 2.0])


def test_a_slow_server_takes_longer_and_recovers_and_one_that_stalls_begins_nothing() -> None:
    found, _ = simulation(DescribedServer("a"), troubles=[Trouble("a", 1.0, 2.0, 10.0), Trouble("a", 2.0, 5.0, stalls=True)])
    for moment in (0.5, 1.0, 2.5, 5.0):
        found.advance(moment)
        found.claim(0.1)
    found.drain()
    assert sorted(times(found)) == [0.1, 0.1, 1.0, 2.6]


def test_full_servers_are_no_candidates_and_backups_come_last() -> None:
    found, _ = simulation(DescribedServer("a", max_connections=2), DescribedServer("b", backup=True, max_connections=1))
    picked = [found.claim(1.0) for _ in range(4)]
    assert [server.name if server else None for server in picked] == ["a", "a", "b", None]
    assert found.refused == 1


def test_requests_wait_in_the_pools_queue_in_order_until_their_time_is_over() -> None:
    found, _ = simulation(DescribedServer("a", max_connections=1), queue=(2, 1.5))
    for _ in range(4):
        found.claim(1.0)
    assert (found.refused, found.most_waiting) == (1, 2)
    found.drain()
    # The second waits 1 s and is served; the third would have to wait 2 s.
    assert times(found) == [1.0, 2.0] and found.refused == 2


def test_failures_in_a_row_eject_a_server_and_a_trial_brings_it_back() -> None:
    found, policy = simulation(DescribedServer("a"), DescribedServer("b"), troubles=[Trouble("b", 0.0, 25.0, fails_in_s=0.0)],
                               ejection=EjectionModel(failures=3, seconds=10, penalty_s=0))
    picked = []
    for moment in range(60):
        found.advance(moment)
        server = found.claim(0.5)
        assert server is not None
        picked.append(server.name)
    # Out at 2 s for 10 s; the trials at 12 s and, 20 s later, at 32 s; that one is answered, and all go to b again.
    assert "".join(picked) == "bbb" + "a" * 9 + "b" + "a" * 19 + "b" * 28
    assert found.failed == 4


def test_the_last_server_is_not_ejected() -> None:
    found, _ = simulation(DescribedServer("a"), troubles=[Trouble("a", 0.0, 9.0, fails_in_s=0.0)], ejection=EjectionModel())
    for moment in range(20):
        found.advance(moment)
        assert found.claim(0.5) is not None
    found.drain()
    assert (found.failed, len(found.latencies)) == (9, 11)


def test_a_failure_counts_as_load_for_a_while() -> None:
    found, _ = simulation(DescribedServer("a"), troubles=[Trouble("a", 0.0, 9.0, fails_in_s=0.0)],
                          ejection=EjectionModel(failures=0, penalty_s=2.0))
    found.advance(0.0)
    found.claim(1.0)
    found.advance(1.0)
    assert (found.servers[0].in_flight, found.servers[0].claims) == (1, 0)
    found.advance(2.0)
    assert found.servers[0].in_flight == 0


def test_spread_and_peak_are_averages_over_time() -> None:
    found, _ = simulation(DescribedServer("a"), DescribedServer("b", weight=2))
    found.claim(1.0)
    found.claim(3.0)  # b has 2 for 1 s, that is 1 for each unit of weight, then 1 for 2 s
    found.advance(4.0)
    assert (found.spread_s, found.peak_s, found.counted_s) == (2.0, 2.0, 4.0)


def test_least_connections_keeps_a_slow_server_from_gathering_requests() -> None:
    scene = Scene(DescribedLoad(300, parse_service_times("constant:30ms"), 6000),
                  [DescribedServer(name, workers=8) for name in "abcd"],
                  [Trouble("b", 0.0, float("inf"), 10.0)])
    found = compare(scene, ["round-robin", "least-connections"], range(2))
    choice = recommend(found)
    assert choice.policy == "least-connections" and not choice.equal and choice.why[0].startswith("p99: ")
    means = averages(found)
    assert means["least-connections"].p99_s < means["round-robin"].p99_s / 10
    alone = [run_policy(scene, "least-connections", seed) for seed in range(2)]
    assert found["least-connections"] == alone, "processes change nothing"


def test_a_sites_own_policy_that_picks_no_candidate_is_named() -> None:
    class Bad:
        def pick(self, candidates: object, request: object) -> None:
            return None

    found = Simulation(simulated([DescribedServer("a")]), lambda clock: Bad())  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="picked None"):
        found.claim(1.0)


def some(p99: float, mean: float = 0.03, spread: float = 1.0, failed: int = 0) -> Figures:
    return Figures(1000, mean, mean, p99, spread, 1, 1, 0, failed, 0, (1.0,), (mean,) * (len(PERCENTS) - 1) + (p99,))


@pytest.mark.parametrize(("runs", "policy", "equal"), [
    # 3 % is nothing, whatever the noise.
    ({"least-connections": [some(0.103)] * 3, "peak-ewma": [some(0.100)] * 3}, "least-connections", ("peak-ewma",)),
    # 10 % in each of the runs is something.
    ({"least-connections": [some(0.11)] * 3, "peak-ewma": [some(0.10)] * 3}, "peak-ewma", ()),
    # 10 % on average, now more, now less: noise.
    ({"round-robin": [some(0.2), some(0.02)], "random": [some(0.1), some(0.1)]}, "round-robin", ("random",)),
    # Errors count before times.
    ({"random": [some(0.01, failed=9)] * 3, "least-connections": [some(1.0)] * 3}, "least-connections", ()),
    # Where the times are equal the spread decides.
    ({"round-robin": [some(0.1, spread=2.0)] * 3, "least-connections": [some(0.1, spread=0.7)] * 3}, "least-connections", ()),
    ({"site:Own": [some(0.1)], "random": [some(0.1)]}, "random", ("site:Own",)),
])
def test_differences_within_the_noise_are_none_and_the_simplest_is_chosen(
        runs: dict[str, list[Figures]], policy: str, equal: tuple[str, ...]) -> None:
    choice = recommend(runs)
    assert (choice.policy, choice.equal) == (policy, equal)
    assert choice.why


def test_nothing_but_errors_still_has_figures_and_a_picture() -> None:
    found, _ = simulation(DescribedServer("a"), troubles=[Trouble("a", 0.0, float("inf"), fails_in_s=0.0)])
    found.advance(1.0)
    found.claim(1.0)
    found.drain()
    each = figures(found, 1)
    assert (each.failed, each.p99_s) == (1, 0.0)
    ElementTree.fromstring(svg({"only": each}, "nothing", "only"))


def test_the_picture_is_xml_with_a_line_and_a_name_for_each_policy() -> None:
    page = svg({"a<b": some(0.1), "c": some(0.2)}, "R&D", "c")
    root = ElementTree.fromstring(page)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polyline")) == 2
    assert {"a<b", "c", "R&D"} <= {each.text for each in root.findall(f"{space}text")}


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [percentile([15, 20, 35, 40, 50], percent) for percent in (0, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]


def test_policies_of_this_package_run_on_lists() -> None:
    servers = simulated([DescribedServer("a"), DescribedServer("b")])
    memory = PolicyMemory([0] * 8, ([0] * 2, [0] * 2, [0] * 2))
    found = Simulation(servers, lambda clock: make_policy(
        "round-robin", PolicySetup(random.Random(1), memory, servers, clock=clock)))
    assert [server.name for server in (found.claim(1.0) for _ in range(4)) if server] == ["a", "b", "a", "b"]
