"""`split`, and what else tells of weights of splits, on an instance in real shared memory and by its API."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork_lb.cli.local import LocalInstance
from prefork_lb.config.load import load
from prefork_lb.config.published import encode_published
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import set_weights
from tests.unit.cli.instances import Instance, refused, said
from tests.unit.cli.interfaces import served

CONFIG = """[pools.stable]
servers = ["10.0.0.1:80"]
[pools.canary]
servers = ["10.0.0.2:80"]
[[routes]]
pool = "stable"
[[routes]]
paths = ["/api"]
split = { stable = 95, canary = 5 }
[[routes]]
paths = ["/new"]
split = { stable = 1, canary = 1 }
"""
API, NEW = "route 2: stable 95, canary 5: any host; /api\n", "route 3: stable 1, canary 1: any host; /new\n"


@pytest.fixture
def instance(new_instance: Callable[..., Instance], tmp_path: Path) -> Instance:
    (tmp_path / "lb.toml").write_text(CONFIG)
    made = new_instance(("stable", ["10.0.0.1:80"]), ("canary", ["10.0.0.2:80"]))
    publish(made.segment, made.ledger, encode_published(load(tmp_path / "lb.toml")))
    return made


@pytest.fixture
def url(segment: Segment) -> Iterator[str]:
    with served(segment) as (url, _):
        yield url


def test_splits_are_listed_and_set(instance: Instance) -> None:
    assert said("split") == API + NEW and said("split", 2) == API
    changed = "route 2: stable 80 (configured: 95), canary 20 (configured: 5): any host; /api\n"
    assert said("split", 2, "canary=20", "stable=80") == changed
    assert said("split") == changed + NEW and changed in said("status")
    assert said("split", 2, "canary=default", "stable=default") == API and set_weights(instance.segment) == {}


def test_a_pool_may_get_nothing(instance: Instance) -> None:
    assert "stable 95, canary 0 (configured: 5)" in said("split", 2, "canary=0")
    assert "at least one must have more" in refused("split", 2, "stable=0")


@pytest.mark.parametrize("weight", ["canary", "canary=", "=5", "canary=-1", "canary=1.5", "canary=1000001", "canary=00", ""])
def test_what_is_no_weight_is_told(instance: Instance, weight: str) -> None:
    assert "as canary=20, or canary=default" in refused("split", "--", 2, weight, code=2)


def test_what_there_is_not_is_told(instance: Instance) -> None:
    assert "route 1 has no split" in refused("split", 1, "canary=5")
    assert "'other' is no pool of this split; it has stable, canary" in refused("split", 2, "other=5")


def test_a_split_elsewhere_is_set_by_the_api(url: str) -> None:
    assert said("split", "--url", url) == "route 1: web 95, api 5: split.test; any path\n"
    assert "api 20 (configured: 5)" in said("split", 1, "api=20", "--url", url)
    assert "at least one must have more" in refused("split", 1, "api=0", "web=0", "--url", url)


def test_the_routes_of_a_running_instance_are_listed_with_the_weights_in_force(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalInstance, "enter_folder", lambda self: None)
    said("split", 2, "canary=20")
    listed = said("routes", "--running")
    assert "pool stable (95) or canary (20)" in listed and "pool stable (1) or canary (1)" in listed
    assert "give one of them" in refused("routes", "lb.toml", "--running", code=2)
