"""Weights of splits that operators set, on several balancers."""
from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.config.published import decode_published
from prefork_lb.observe.splits import splits_in_force, splits_of
from prefork_lb.shared.events import recent
from prefork_lb.shared.published_config import publish
from tests.unit.cluster.conftest import NewBalancer
from tests.unit.cluster.store import FakeStore, OneBalancer, exchange

HALF = {"stable": 50, "canary": 50}


def configuration(split: Mapping[str, int], path: str = "/") -> bytes:
    return json.dumps({"pools": {name: {"servers": []} for name in split},
                       "routes": [{"paths": [path], "split": dict(split)}]}).encode()


class Pair:
    """Two balancers with a split."""

    def __init__(self, new_balancer: NewBalancer, clock: ManualClock) -> None:
        self._clock = clock
        self.balancers = new_balancer("a"), new_balancer("b")
        self.a, self.b = self.balancers
        for balancer in self.balancers:
            self.configure(balancer, configuration(HALF))
        self.share()

    def configure(self, balancer: OneBalancer, data: bytes) -> None:
        publish(balancer.segment, balancer.ledger, data)
        self._config = decode_published(data)[0]

    def set(self, balancer: OneBalancer, who: str = "somebody", **weights: int | None) -> None:
        split, = splits_of(decode_published(configuration(HALF))[0])
        balancer.steering.set_split(split, weights, who)

    def share(self) -> None:
        exchange(self._clock, *self.balancers, rounds=3)

    def weights(self, balancer: OneBalancer) -> Mapping[str, int]:
        return splits_in_force(balancer.segment, self._config)[0].weights


@pytest.fixture
def pair(new_balancer: NewBalancer, clock: ManualClock) -> Pair:
    return Pair(new_balancer, clock)


def test_the_newest_weights_hold_on_all(pair: Pair) -> None:
    pair.set(pair.a, stable=90, canary=10)
    pair.share()
    assert pair.weights(pair.b) == {"stable": 90, "canary": 10}
    assert [event.who for event in recent(pair.b.segment, 0, 100) if event.kind == "split"] == ["balancer a"]
    pair.set(pair.b, canary=0)
    pair.share()
    assert pair.weights(pair.a) == pair.weights(pair.b) == {"stable": 90, "canary": 0}
    pair.set(pair.a, stable=None, canary=None)
    pair.share()
    assert pair.weights(pair.b) == HALF
    pair.share()
    assert len([event for event in recent(pair.b.segment, 0, 100) if event.kind == "split"]) == 3, "each once"


def test_of_weights_set_without_the_store_the_newest_count(pair: Pair, store: FakeStore) -> None:
    store.is_away = True
    store.empty()
    pair.set(pair.b, stable=1)
    pair.share()
    pair.set(pair.a, stable=2)
    pair.share()
    store.is_away, store.ahead_s = False, 5.0
    pair.share()
    assert pair.weights(pair.a) == pair.weights(pair.b) == {"stable": 2, "canary": 50}


def test_a_newcomer_goes_by_what_is_set(pair: Pair, new_balancer: NewBalancer) -> None:
    """Also when it has weights from before its start, such as those of its state file."""
    pair.set(pair.a, stable=90)
    pair.share()
    newcomer = new_balancer("c")
    pair.configure(newcomer, configuration(HALF))
    pair.set(newcomer, "the state file", stable=7)
    pair.balancers = newcomer, *pair.balancers  # type: ignore[assignment]
    pair.share()
    assert [pair.weights(balancer) for balancer in pair.balancers] == 3 * [{"stable": 90, "canary": 50}]


def test_a_balancer_with_other_pools_uses_what_it_has_and_turns_nothing_around(pair: Pair) -> None:
    pair.configure(pair.b, configuration({"stable": 50, "other": 50}))
    pair.share()
    pair.set(pair.a, stable=90, canary=10)
    pair.share()
    assert pair.weights(pair.b) == {"stable": 90, "other": 50}
    pair.set(pair.a, stable=0)  # of b's pools one has 50 still
    pair.configure(pair.b, configuration({"stable": 50}))
    pair.share()
    assert pair.weights(pair.b) == {"stable": 90}, "a split needs a weight"
    pair.configure(pair.a, configuration(HALF))
    pair.share()
    assert pair.weights(pair.a) == {"stable": 0, "canary": 10}


def test_a_balancer_without_the_route_passes_over_its_weights(pair: Pair) -> None:
    pair.configure(pair.b, configuration(HALF, "/elsewhere"))
    pair.set(pair.a, stable=90)
    pair.share()
    assert pair.weights(pair.b) == HALF
    pair.configure(pair.b, configuration(HALF))
    pair.share()
    assert pair.weights(pair.b) == {"stable": 90, "canary": 50}
