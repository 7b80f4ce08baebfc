"""Policies by name, and a user's own."""
from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from prefork_lb.balance.policy import PolicySetup
from prefork_lb.balance.registry import POLICY_NAMES, make_policy, own_policy_class
from tests.unit.balance.candidates import REQUEST, AnyRequest, backends, fresh_memory, name_of


def test_the_names_are_those_of_the_contract() -> None:
    assert POLICY_NAMES == ("round-robin", "weighted-round-robin", "least-connections", "peak-ewma", "least-time",
                            "random", "power-of-two", "hash", "consistent-hash", "first")


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_name_makes_a_policy_that_picks_a_candidate(name: str) -> None:
    servers = backends(2, 1, 1)
    policy = make_policy(name, PolicySetup(random.Random(1), fresh_memory(), servers))
    for request in (REQUEST, AnyRequest(key=b"x")):
        assert name_of(policy.pick(servers, request), servers) in "abc"


@pytest.mark.parametrize("name", ["", "fastest", "Round-Robin", "module:", "module"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        own_policy_class(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in POLICY_NAMES)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delitem(sys.modules, "site_policies", raising=False)
    (tmp_path / "site_policies.py").write_text(
        "import random\n"
        "class Last:\n"
        "    def __init__(self, rng, memory): self.given = rng, memory\n"
        "    def pick(self, candidates, request): return candidates[-1]\n"
        "class NoPick: pass\n"
        "def pick(candidates, request): return candidates[0]\n")
    (tmp_path / "site_broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "site_raises.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "site_policies"


def test_a_class_of_ones_own_is_given_the_generator_and_the_memory(module: str) -> None:
    rng, memory = random.Random(1), fresh_memory()
    policy = make_policy(f"{module}:Last", PolicySetup(rng, memory))
    assert policy.given == (rng, memory)  # type: ignore[attr-defined]
    servers = backends(1, 1)
    assert policy.pick(servers, REQUEST) is servers[1]


@pytest.mark.parametrize("name", ["Missing", "NoPick", "pick", "random"])
def test_what_is_no_class_with_a_method_pick_is_refused(module: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{module} has no class {name} with a method pick"):
        own_policy_class(f"{module}:{name}")


@pytest.mark.parametrize(("name", "missing"), [("no_such_package.part:Class", "no_such_package"),
                                               ("site_broken:Class", "no_such_module_at_all")])
def test_a_module_that_is_missing_is_named(module: str, name: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"no module named '{missing}'.*PYTHONPATH") as caught:
        own_policy_class(name)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_error_of_the_users_module_is_told_with_its_place(module: str) -> None:
    with pytest.raises(ValueError, match=r"RuntimeError: no licence \(.*site_raises\.py:\d+\)") as caught:
        own_policy_class("site_raises:Class")
    assert isinstance(caught.value.__cause__, RuntimeError)
