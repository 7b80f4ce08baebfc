"""`roll` on an instance in real shared memory; the test plays the controller."""
from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from prefork_lb.cli import roll as command
from prefork_lb.shared.events import EventKind, recent, record_event
from prefork_lb.shared.scaling_state import Mode, Roll, Scaling, asked_roll, end_roll, write_scaling
from prefork_lb.shared.states import now_ms
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, Table
from tests.unit.cli.instances import ONE, TWO, Instance, Time, invoke, refused


class Controller:
    """Has two servers of scaling in the pool api, and replaces them."""

    def __init__(self, instance: Instance) -> None:
        self.instance, self.segment = instance, instance.segment
        self.steering = Steering(self.segment, instance.ledger, instance.states)
        with instance.ledger.locked():
            number = Table(self.segment).pool_number("api")
            assert number is not None
            self.number = number
            write_scaling(self.segment, number, Scaling(Mode.AUTO, 4, 2, 2, 0, 0, "why"))
        self.add(1)
        self.add(2)

    def add(self, n: int) -> None:
        self.steering.add_server("api", f"10.0.1.{n}:80", who="scaling", source=AddedBy.SCALING)

    def replace(self, n: int) -> None:
        self.add(n + 2)
        self.steering.let_go("api", f"10.0.1.{n}:80")

    def end(self, text: str) -> None:
        with self.instance.ledger.locked():
            end_roll(self.segment, self.number)
            record_event(self.segment, EventKind.ROLLED, text, "web", who="scaling")
            record_event(self.segment, EventKind.ROLLED, text, "api", who="scaling")

    @property
    def asked(self) -> Roll | None:
        return asked_roll(self.segment, self.number)


@pytest.fixture
def controller(new_instance: Callable[..., Instance]) -> Controller:
    return Controller(new_instance(("web", [ONE]), ("api", [TWO])))


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens while the command waits."""
    time = Time()
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep))
    return time.meanwhile


def test_it_waits_until_all_servers_are_replaced_and_tells_how_far_that_is(
        controller: Controller, meanwhile: list[Callable[[], object]]) -> None:
    before = now_ms()
    asked: list[Roll | None] = []
    meanwhile += [lambda: asked.append(controller.asked), lambda: controller.replace(1), lambda: None,
                  lambda: controller.replace(2), lambda: None, lambda: controller.end("2 new servers")]
    result = invoke("roll", "api", "--surge", 2)
    assert asked[0] is not None and asked[0].surge == 2 and before <= asked[0].before_ms <= now_ms()
    assert result.stdout == ("pool api: 2 servers are replaced, 2 at a time\n1 of 2 replaced\n2 of 2 replaced\n"
                             "pool api: 2 new servers\n")
    assert result.exit_code == 0
    assert [event.text for event in recent(controller.segment, 0) if event.kind == EventKind.AUDIT] == [
        "roll, 2 new servers at a time"]


def test_a_roll_that_has_gone_back_has_an_exit_code_of_its_own(
        controller: Controller, meanwhile: list[Callable[[], object]]) -> None:
    meanwhile += [lambda: controller.end("gone back: a new server has not started: exited with code 1")]
    result = invoke("roll", "api")
    assert result.exit_code == 3
    assert result.stderr == "pool api: gone back: a new server has not started: exited with code 1\n"


def test_one_that_takes_too_long_goes_on(controller: Controller, meanwhile: list[Callable[[], object]]) -> None:
    result = invoke("roll", "api", "--timeout", 5)
    assert result.exit_code == 1
    assert "still being replaced after 5 s; that goes on" in result.stderr
    assert controller.asked
    assert "being replaced already" in refused("roll", "api")
    assert ", being replaced: why" in invoke("status").stdout


def test_one_that_ends_without_a_word_is_not_waited_for(controller: Controller, meanwhile: list[Callable[[], object]]) -> None:
    """The controller was killed, or the configuration does not scale the pool any more."""
    def end() -> None:
        with controller.instance.ledger.locked():
            end_roll(controller.segment, controller.number)

    meanwhile += [end]
    result = invoke("roll", "api")
    assert result.exit_code == 1
    assert "the roll is over, and no event tells its outcome" in result.stderr


@pytest.mark.parametrize(("arguments", "why"), [
    (("web",), "the pool web does not scale"), (("none",), "there is no pool 'none'"),
    (("api", "--surge", 5), "5 is no number of new servers at a time; expected 1 to 4"),
])
def test_what_the_instance_refuses_is_told(controller: Controller, arguments: tuple[object, ...], why: str) -> None:
    assert why in refused("roll", *arguments)
