"""Every policy under the same load, in as many processes as there are cores, and which of them to choose."""
from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from prefork_lb.balance.policy import PolicyMemory, PolicyOptions, PolicySetup
from prefork_lb.balance.registry import KEYED_POLICIES, POLICY_NAMES, make_policy
from prefork_lb.simulate.ejection import EjectionModel
from prefork_lb.simulate.figures import Figures, average, figures
from prefork_lb.simulate.load import Load, Requests
from prefork_lb.simulate.servers import DescribedServer, Trouble
from prefork_lb.simulate.simulation import Simulation, simulated

# The policies, the easiest to explain first. Of policies that are equally good the first is chosen; what is not here comes last.
_SIMPLE = ("round-robin", "weighted-round-robin", "least-connections", "power-of-two", "least-time", "peak-ewma", "random")
_CELLS, _COLUMNS = 16, 16  # of a policy's memory: more than any uses
_ERROR_SHARE = 0.001  # of the requests: a difference below is none
_TOLERANCE = 0.05  # so is one of times or spread below this share, however certain it is
_LEAST_SPREAD = 0.05

DEFAULT_POLICIES = tuple(name for name in POLICY_NAMES if name != "first" and name not in KEYED_POLICIES)
"""The policies that are there to spread load well. `first` and those by key are there for something else."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What every policy is tried on."""

    load: Load
    servers: Sequence[DescribedServer]
    troubles: Sequence[Trouble] = ()
    queue_size: int = 0
    queue_timeout_s: float = 0.0
    options: PolicyOptions = PolicyOptions()
    ejection: EjectionModel | None = None
    key: str = "source"  # for policies by key: "source", "uri" or "path"

    @property
    def use(self) -> float | None:
        """The share of the servers' capacity that the load takes; None: their capacity has no bound."""
        primaries = [server for server in self.servers if not server.backup]
        if not all(server.workers for server in primaries):
            return None
        return self.load.rate * self.load.mean_service_s / sum(server.workers for server in primaries)


def run_policy(scene: Scene, policy: str, seed: int, requests: Requests | None = None) -> Figures:
    """One policy, one draw of the load. `requests` are what the load draws for this seed, if that is known already.

    Raises ValueError when there is no such policy.
    """
    requests = requests or scene.load.draw(seed)
    servers = simulated(scene.servers)
    memory = PolicyMemory([0] * _CELLS, tuple([0] * len(servers) for _ in range(_COLUMNS)))
    simulation = Simulation(
        servers, lambda clock: make_policy(policy, PolicySetup(random.Random(seed), memory, servers, scene.options, clock)),
        scene.troubles, scene.queue_size, scene.queue_timeout_s, scene.ejection)
    advance, claim, request = simulation.advance, simulation.claim, simulation.request
    if policy in POLICY_NAMES and policy not in KEYED_POLICIES:
        for arrival, service_s in zip(requests.arrivals, requests.services, strict=True):
            advance(arrival)
            claim(service_s)
    else:
        for number, (arrival, service_s) in enumerate(zip(requests.arrivals, requests.services, strict=True)):
            advance(arrival)
            request.client = requests.clients[number]
            if requests.targets:
                request.target = requests.targets[number]
            request.key = _key(scene.key, request.client, request.target)
            claim(service_s)
    # The spread is that of the time in which requests come.
    spread_s, counted_s = simulation.spread_s, simulation.counted_s
    simulation.drain()
    simulation.spread_s, simulation.counted_s = spread_s, counted_s
    return figures(simulation, len(requests.arrivals))


def _key(kind: str, client: str, target: bytes) -> bytes:
    if kind == "source":
        return client.encode()
    return target.partition(b"?")[0] if kind == "path" else target


class _Draws:
    """The last draw of a load: the policies are tried on it one after the other."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._seed, self._requests = seed, scene.load.draw(seed)

    def run(self, policy: str, seed: int) -> Figures:
        if seed != self._seed:
            self._seed, self._requests = seed, self._scene.load.draw(seed)
        return run_policy(self._scene, policy, seed, self._requests)


_draws: _Draws | None = None  # in a process of `compare`


def _begin(draws: _Draws) -> None:
    global _draws
    _draws = draws
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback


def _run_here(policy: str, seed: int) -> Figures:
    assert _draws is not None
    return _draws.run(policy, seed)


def compare(scene: Scene, policies: Sequence[str], seeds: Sequence[int],
            on_run: Callable[[], None] = lambda: None) -> dict[str, list[Figures]]:
    """The figures of each policy, a run for each seed; all policies see the same requests under the same seed.

    `on_run` is called after each run. Raises ValueError when there is no such policy.
    """
    jobs = [(policy, seed) for seed in seeds for policy in policies]
    processes = min(len(jobs), len(os.sched_getaffinity(0)))
    found: dict[str, list[Figures]] = {policy: [] for policy in policies}
    draws = _Draws(scene, seeds[0])
    if processes == 1:
        for policy, seed in jobs:
            found[policy].append(draws.run(policy, seed))
            on_run()
        return found
    # Forked: a log of a million lines need not be sent to each, and the first draw is there already.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (draws,)) as pool:
        futures = [(policy, pool.submit(_run_here, policy, seed)) for policy, seed in jobs]
        try:
            for policy, future in futures:
                found[policy].append(future.result())
                on_run()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


_MEASURES: tuple[tuple[str, str, Callable[[Figures], float], float], ...] = (
    ("errors", "of 1000 requests", lambda each: 1000 * each.errors / each.requests, 1000 * _ERROR_SHARE),
    ("p99", "ms", lambda each: 1000 * each.p99_s, 0.0),
    ("mean", "ms", lambda each: 1000 * each.mean_s, 0.0),
    ("spread", "requests", lambda each: each.spread, _LEAST_SPREAD),
)
"""What policies are compared by, the most important first: name, unit, value, and the least difference that counts."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The policy to choose."""

    policy: str
    why: tuple[str, ...]  # a sentence for each measure that decided something, and what decided in the end
    equal: tuple[str, ...]  # the others that are as good


def recommend(runs: Mapping[str, Sequence[Figures]]) -> Recommendation:
    """The policy with the fewest errors; of those the one with the lowest p99, then mean, then spread; of equals the simplest.

    Two policies are equal in a measure when their difference is within twice its standard error over the seeds, or below 5 %.
    """
    left = list(runs)
    why = []
    for name, unit, measure, least in _MEASURES:
        values = {policy: [measure(each) for each in runs[policy]] for policy in left}
        best = min(left, key=lambda policy: _mean(values[policy]))
        kept = [policy for policy in left if _is_equal(values[best], values[policy], least)]
        if len(kept) < len(left):
            beaten = min((policy for policy in left if policy not in kept), key=lambda policy: _mean(values[policy]))
            why.append(f"{name}: {_mean(values[best]):.3g} {unit} with {best}; the next that is worse, {beaten}, has "
                       f"{_mean(values[beaten]):.3g}")
        left = kept
    simplest = min(left, key=lambda policy: (_SIMPLE.index(policy) if policy in _SIMPLE else len(_SIMPLE), policy))
    equal = tuple(policy for policy in left if policy != simplest)
    if equal:
        why.append(f"{', '.join(equal)}: as good, within the noise; {simplest} is the simplest of them")
    return Recommendation(simplest, tuple(why), equal)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_equal(best: Sequence[float], other: Sequence[float], least: float) -> bool:
    differences = [theirs - ours for ours, theirs in zip(best, other, strict=True)]
    mean = _mean(differences)
    variance = sum((each - mean) ** 2 for each in differences) / max(1, len(differences) - 1)
    return mean <= max(least, _TOLERANCE * _mean(best), 2 * math.sqrt(variance / len(differences)))


def averages(runs: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """The figures of each policy over all seeds."""
    return {policy: average(each) for policy, each in runs.items()}
