"""docs/policies.md: every policy has its section, and the example of one's own runs as it stands there."""
from __future__ import annotations

import random
import re
import sys
import tomllib
from pathlib import Path

import pytest

from prefork_lb.balance.policy import PolicySetup
from prefork_lb.balance.registry import POLICY_NAMES, make_policy
from prefork_lb.shared import layout as at
from tests.unit.balance.candidates import backends, burst, fresh_memory, sequence

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "policies.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's example in a file of the page's name; gives the name that the page configures."""
    (code,) = blocks("python")
    file, = re.findall(r"A complete one, in `(\w+\.py)`", PAGE)
    (tmp_path / file).write_text(code)
    monkeypatch.delitem(sys.modules, file.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (name,) = (tomllib.loads(text)["pools"]["web"]["policy"] for text in blocks("toml") if "site_policies" in text)
    return str(name)


def test_every_policy_has_a_section_and_every_section_is_a_policy() -> None:
    sections = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted([*POLICY_NAMES, "All policies", "One's own", "Which policy for my site"])
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)) == sorted(POLICY_NAMES)


def test_the_example_does_what_it_says(own_policy: str) -> None:
    policy = make_policy(own_policy, PolicySetup(random.Random(1), fresh_memory()))
    servers = backends(1, 2)
    assert burst(policy, servers, 24) == "a" * 8 + "b" * 16
    assert burst(policy, servers, 5) == "ababa"
    servers[1].in_flight = 15
    assert sequence(policy, servers, 1) == "b"


def test_the_examples_turns_are_shared_by_all_workers(own_policy: str) -> None:
    memory = fresh_memory()
    one, other = (make_policy(own_policy, PolicySetup(random.Random(seed), memory)) for seed in (1, 2))
    servers = backends(1, 1, 1)
    for server in servers:
        server.in_flight = 8
    assert "".join(burst(policy, servers, 1) for policy in (one, other, other, one)) == "abca"


def test_the_page_tells_how_much_memory_there_is() -> None:
    assert f"`memory.cells[0]` to `[{at.POLICY_CELLS - 1}]`" in PAGE
    assert f"`memory.columns[0]` to `[{len(at.POLICY_COLUMNS) - 1}]`" in PAGE


def test_the_configurations_of_the_page_are_valid(tmp_path: Path, own_policy: str) -> None:
    from prefork_lb.config.load import load

    for number, text in enumerate(blocks("toml")):
        if "servers" not in text:
            text += 'servers = ["10.0.0.1:8001"]\n'
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        assert load(file).pools
