"""Servers and shared memory as a policy sees them, without processes: lists stand in for shared memory."""
from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefork_lb.balance.policy import Candidate, Policy, PolicyMemory, PolicyOptions, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.clock import Clock, monotonic
from prefork_lb.simulate.simulation import AnyRequest

SLOTS = 128


@dataclass(slots=True, eq=False)
class Backend:
    """A candidate. Its name is the letter of its slot: a, b, c, ..."""

    slot: int
    weight: int = 1
    in_flight: int = 0
    name: str = ""
    configured_weight: int = 0
    backup: bool = False

    def __post_init__(self) -> None:
        self.name = self.name or chr(ord("a") + self.slot)
        self.configured_weight = self.configured_weight or self.weight


REQUEST = AnyRequest()
OPTIONS = PolicyOptions()


def backends(*weights: int) -> list[Backend]:
    """One idle server for each weight, in slots 0, 1, 2, ..."""
    return [Backend(slot, weight) for slot, weight in enumerate(weights)]


def fresh_memory() -> PolicyMemory:
    return PolicyMemory([0] * 8, tuple([0] * SLOTS for _ in range(8)))


def new_policy(name: str, seed: int = 1, memory: PolicyMemory | None = None, servers: Sequence[Candidate] = (),
               options: PolicyOptions = OPTIONS, clock: Clock = monotonic) -> Policy:
    return make_policy(name, PolicySetup(random.Random(seed), memory or fresh_memory(), servers, options, clock))


def sequence(policy: Policy, candidates: Sequence[Backend], count: int) -> str:
    """The names of `count` picks in a row, each of them over before the next."""
    return "".join(name_of(policy.pick(candidates, REQUEST), candidates) for _ in range(count))


def burst(policy: Policy, candidates: Sequence[Backend], count: int) -> str:
    """The names of `count` picks in a row, all of which stay in flight."""
    names = []
    for _ in range(count):
        picked = policy.pick(candidates, REQUEST)
        names.append(name_of(picked, candidates))
        next(server for server in candidates if server is picked).in_flight += 1
    return "".join(names)


def name_of(picked: object, candidates: Iterable[Backend]) -> str:
    """The name of what a policy returned, which must be one of the very objects it was given."""
    for server in candidates:
        if server is picked:
            return server.name
    raise AssertionError(f"{picked!r} is no candidate")


def counts(names: str, candidates: Iterable[Candidate]) -> list[int]:
    return [names.count(server.name) for server in candidates]
