"""Which policy a name stands for: one line a policy."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefork_lb.balance.consistent_hash import ConsistentHash
from prefork_lb.balance.first import First
from prefork_lb.balance.hashed import Hash
from prefork_lb.balance.least_connections import LeastConnections
from prefork_lb.balance.least_time import LeastTime
from prefork_lb.balance.nginx_hash import NginxHash, NginxKetama
from prefork_lb.balance.peak_ewma import PeakEWMA
from prefork_lb.balance.policy import Policy, PolicySetup
from prefork_lb.balance.power_of_two import PowerOfTwo
from prefork_lb.balance.power_of_two_timed import PowerOfTwoTimed
from prefork_lb.balance.round_robin import RoundRobin
from prefork_lb.balance.smooth import SmoothWeightedRoundRobin
from prefork_lb.balance.weighted_random import WeightedRandom
from prefork_lb.own_code import named, told

_POLICIES: dict[str, Callable[[PolicySetup], Policy]] = {
    "round-robin": RoundRobin,
    "weighted-round-robin": SmoothWeightedRoundRobin,
    "least-connections": LeastConnections,
    "peak-ewma": PeakEWMA,
    "least-time": LeastTime,
    "random": WeightedRandom,
    "power-of-two": lambda setup: PowerOfTwo(setup) if setup.options.load == "connections" else PowerOfTwoTimed(setup),
    "hash": lambda setup: NginxHash(setup) if setup.options.compatible else Hash(setup),
    "consistent-hash": lambda setup: NginxKetama(setup) if setup.options.compatible else ConsistentHash(setup),
    "first": First,
}

POLICY_NAMES: tuple[str, ...] = tuple(_POLICIES)

KEYED_POLICIES = ("hash", "consistent-hash")
"""The policies that go by the pool's `key`."""


def own_policy_class(name: str) -> type[Any]:
    """A site's own class of a policy, named as `package.module:Class`; it is called with a random generator and the memory.

    Raises ValueError with what was found and what is expected, also for whatever a site's own module raises when it is imported.
    """
    module_name, colon, class_name = name.partition(":")
    if not colon or not class_name:
        raise ValueError(f'{name!r} is not a policy: use one of {", ".join(POLICY_NAMES)}, or "package.module:Class"')
    found = named("policy", name)
    if not (isinstance(found, type) and callable(getattr(found, "pick", None))):
        raise ValueError(f"policy {name!r}: {module_name} has no class {class_name} with a method pick(candidates, request)")
    return found


def make_policy(name: str, setup: PolicySetup) -> Policy:
    """A policy by its name or as `package.module:Class`. Raises ValueError, also for whatever a site's own class raises."""
    if name in _POLICIES:
        return _POLICIES[name](setup)
    found = own_policy_class(name)
    try:
        made: Policy = found(setup.rng, setup.memory)
    except Exception as exc:
        raise ValueError(f"policy {name!r}: it cannot be made: {told(exc)}") from exc
    return made
