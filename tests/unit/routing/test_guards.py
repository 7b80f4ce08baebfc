"""What the guards of a route hold is given back whatever happens."""
from __future__ import annotations

import pytest

from prefork_lb.errors import Forbidden
from prefork_lb.routing.guards import Guard, Guarded, Passed
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead

FACTS = Facts(RequestHead(b"GET", b"/", 1, []), b"/", "h", (), ClientInfo("192.0.2.1", b"http", 80, False), lambda _: False)


def holding(told: list[str], name: str) -> Guard:
    def guard(facts: Facts) -> Passed:
        assert facts is FACTS
        told.append(f"+{name}")
        return Passed(lambda: told.append(f"-{name}"))

    return guard


def refusing(facts: Facts) -> Passed:
    raise Forbidden("no")


def test_all_are_passed_in_turn_and_left_once() -> None:
    told: list[str] = []
    passed = Guarded([holding(told, "a"), holding(told, "b")], FACTS).enter()
    assert told == ["+a", "+b"]
    passed.leave()
    passed.leave()
    assert told == ["+a", "+b", "-b", "-a"]


def test_what_was_passed_before_a_refusal_is_left() -> None:
    told: list[str] = []
    with pytest.raises(Forbidden):
        Guarded([holding(told, "a"), refusing, holding(told, "b")], FACTS).enter()
    assert told == ["+a", "-a"]
