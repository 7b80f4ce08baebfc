"""`scale` on an instance in real shared memory."""
from __future__ import annotations

import pytest

from prefork_lb.shared.scaling_state import Mode, Scaling, asked_servers, write_scaling
from prefork_lb.shared.table import Table
from tests.unit.cli.instances import Instance, refused, said


@pytest.fixture
def number(instance: Instance) -> int:
    """Of the pool web, which scales."""
    with instance.ledger.locked():
        number = Table(instance.segment).pool_number("web")
        assert number is not None
        why = "average 14.2 in flight, target 4: wants 4, has 2"
        write_scaling(instance.segment, number, Scaling(Mode.AUTO, 8, 4, 2, 1, 0, why))
    return number


def test_a_number_is_set_and_taken_back(instance: Instance, number: int) -> None:
    assert said("scale", "web", 6) == "pool web: 6 servers\n"
    assert asked_servers(instance.segment, number) == 6
    assert said("scale", "web", "auto") == "pool web: auto\n"
    assert asked_servers(instance.segment, number) is None


@pytest.mark.parametrize("servers", ["six", "-1", "1.5", "", "9999999999", "\N{ARABIC-INDIC DIGIT FIVE}"])
def test_what_is_no_number_is_told(instance: Instance, number: int, servers: str) -> None:
    assert 'expected one like 4, or "auto"' in refused("scale", "--", "web", servers, code=2)


def test_what_the_instance_refuses_is_told(instance: Instance, number: int) -> None:
    assert "9 is no number of servers; expected 0 to 8" in refused("scale", "web", 9)
    assert "the pool api does not scale" in refused("scale", "api", 2)


def test_status_says_how_a_pool_scales_and_why(instance: Instance, number: int) -> None:
    assert ("pool web scales: 4 wanted, 2 running, 1 starting: average 14.2 in flight, target 4: wants 4, has 2\n"
            in said("status"))
