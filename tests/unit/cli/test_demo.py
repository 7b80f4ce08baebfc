"""What the demo's servers go through, and the configuration that it runs."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.cli.demo_plan import CALM, TROUBLE, DemoPlan
from prefork_lb.cli.demo_server import Moods
from prefork_lb.config.load import load_file


def test_moods_come_in_their_order_and_begin_again() -> None:
    moods = Moods("well:20,slow:10,failing:12.5", start=100.0)
    assert [moods.at(100.0 + s) for s in (0, 19.9, 20, 29.9, 30, 42.4, 42.5)] == [
        "well", "well", "slow", "slow", "failing", "failing", "well"]


def test_a_server_without_moods_is_well() -> None:
    assert Moods("", start=0.0).at(1e9) == "well"


@pytest.mark.parametrize("plan", [CALM, TROUBLE])
def test_the_configuration_is_good_and_names_every_server(plan: DemoPlan, tmp_path: Path) -> None:
    addresses = {server.name: f"127.0.0.1:{9001 + number}" for number, server in enumerate(plan.servers())}
    file = tmp_path / "prefork_lb.toml"
    file.write_text(plan.configuration(addresses, "127.0.0.1:9900", str(tmp_path / "access.log")))
    config = load_file(str(file))
    assert bool(config.log.access) is plan.traffic
    assert config.admin is not None and config.admin.bind == "127.0.0.1:9900"
    assert [str(server.address) for pool in config.pools.values() for server in pool.servers] == list(addresses.values())


def test_trouble_is_said_beside_the_server_that_has_it() -> None:
    said = {server.name: server.troubles() for server in TROUBLE.servers()}
    assert said["web-3"] == ", slow and failing at times"
    assert said["api-2"] == ", sick at times"
    assert [name for name, trouble in said.items() if trouble] == ["web-3", "api-2"]
