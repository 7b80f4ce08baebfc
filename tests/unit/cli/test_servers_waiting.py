"""`drain --wait` and `maintenance --wait`, on a clock of the test."""
from __future__ import annotations

import re

import pytest

from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig, ServerConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.shared.published_config import lay_down
from prefork_lb.shared.states import Admin
from prefork_lb.wiring.room import packed
from tests.unit.cli.instances import ONE, TWO, Instance, Time, invoke, refused, said


@pytest.mark.parametrize("command", ["drain", "maintenance"])
def test_waiting_ends_with_the_last_request(instance: Instance, time: Time, command: str) -> None:
    instance.claim("web", ONE)
    instance.claim("api", ONE)
    time.meanwhile = [lambda: None, lambda: instance.release("web", ONE), lambda: instance.release("api", ONE)]
    assert said(command, ONE, "--wait").splitlines() == [
        f"{ONE} (pool web, api): {command}, 2 in flight", f"{ONE}: nothing in flight any more"]
    assert time.naps == 3


def test_other_pools_and_servers_are_not_waited_for(instance: Instance, time: Time) -> None:
    instance.claim("web", ONE)
    instance.claim("web", TWO)
    assert "nothing in flight any more" in said("drain", ONE, "--pool", "api", "--wait")
    assert time.naps == 0


@pytest.mark.parametrize(("timeout", "naps"), [("0", 0), ("0.05", 1), ("2", 40), ("1.5", 30)])
def test_waiting_has_an_end(instance: Instance, time: Time, timeout: str, naps: int) -> None:
    instance.claim("web", TWO, 2)
    result = invoke("drain", TWO, "--wait", "--timeout", timeout)
    assert result.exit_code == 1
    assert result.stdout == f"{TWO} (pool web): drain, 2 in flight\n"
    assert result.stderr == f"Error: 2 still in flight after {float(timeout):g} s\n"
    assert abs(time.naps - naps) <= 1, "sums of floats"
    assert instance.set == {("web", TWO): (Admin.DRAIN, 0)}, "it stays drained"


def test_the_time_to_wait_is_five_minutes_by_default(instance: Instance, time: Time) -> None:
    instance.claim("web", TWO)
    begun = time.now
    assert "1 still in flight after 300 s" in invoke("drain", TWO, "--wait").stderr
    assert time.now - begun == pytest.approx(300, abs=0.2)


def test_what_has_ended_in_time_is_no_timeout(instance: Instance, time: Time) -> None:
    assert said("drain", TWO, "--wait", "--timeout", "0").endswith(f"{TWO}: nothing in flight any more\n")
    assert time.naps == 0


def keep_sessions(instance: Instance) -> None:
    """Give the pool web sessions by cookie."""
    servers = tuple(ServerConfig(address=address) for pool, address in instance.slots if pool == "web")
    with instance.ledger.locked():
        lay_down(instance.segment, packed(Config(pools={"web": PoolConfig(servers=servers, sticky=StickyConfig())})))


def test_waiting_goes_on_until_no_session_can_be_expected(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    drained = instance.states.drained
    slot = instance.slots["web", TWO]

    def let_a_minute_pass() -> None:
        drained[slot] -= 60_000

    time.meanwhile = [*[lambda: None] * 199, let_a_minute_pass]
    told = said("drain", TWO, "--wait").splitlines()
    assert told[-1] == f"{TWO}: nothing in flight any more, and no request of a session for 60 s"
    assert all(line.startswith("sessions that may come back (no request of one for ") for line in told[1:-1]) and len(told) > 2
    assert 200 <= time.naps <= 220


def test_sessions_that_may_come_back_are_no_success_when_the_time_is_over(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    result = invoke("drain", TWO, "--wait", "--timeout", "3")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: sessions that may come back \(no request of one for \d+ s, of 60 s\) after 3 s\n", result.stderr)


def test_a_request_that_was_in_flight_may_have_been_a_session_s(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    slot = instance.slots["web", TWO]
    instance.claim("web", TWO)

    def end_it() -> None:
        instance.states.drained[slot] -= 60_000
        instance.release("web", TWO)

    time.meanwhile = [end_it]
    assert "sessions that may come back" in invoke("drain", TWO, "--wait", "--timeout", "3").stderr


def test_without_wait_nobody_waits(instance: Instance, time: Time) -> None:
    instance.claim("web", TWO)
    said("drain", TWO, "--timeout", "5")
    assert time.naps == 0


def test_the_end_of_the_instance_ends_the_wait(instance: Instance, time: Time) -> None:
    """Nobody sweeps the rows of its workers any more, so their claims stay."""
    instance.claim("web", TWO, 2)
    time.meanwhile = [lambda: None, instance.process.kill]
    result = invoke("drain", TWO, "--wait")
    assert (result.exit_code, result.stderr) == (1, "Error: the instance has ended, with 2 in flight\n")
    assert time.naps == 2


@pytest.mark.parametrize("timeout", ["-1", "soon", "nan"])
def test_a_time_that_is_none_is_told(instance: Instance, timeout: str) -> None:
    assert "Invalid value for '--timeout'" in refused("drain", TWO, f"--timeout={timeout}", code=2)
    assert instance.set == {}


@pytest.mark.parametrize("command", [["ready", TWO, "--wait"], ["weight", TWO, "5", "--wait"], ["ready", TWO, "--timeout", "1"]])
def test_there_is_nothing_to_wait_for_otherwise(instance: Instance, command: list[str]) -> None:
    assert "No such option" in refused(*command, code=2)
