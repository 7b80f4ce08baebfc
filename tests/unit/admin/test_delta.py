"""What a page is told of a second."""
from __future__ import annotations

import copy
from typing import Any

from prefork_lb.admin.delta import delta

BEFORE: dict[str, Any] = {
    "now": 1.0, "generation": 2, "master": 10, "totals": {"rate": 1.0, "in_flight": 0}, "workers": [{"pid": 11, "in_flight": 0}],
    "pools": [{"name": "web", "rate": 1.0, "waiting": 0,
               "servers": [{"address": "a:1", "rate": 1.0, "state": "up"}, {"address": "b:1", "rate": 0.0, "state": "up"}]}],
}


def after(**more: Any) -> dict[str, Any]:
    return copy.deepcopy(BEFORE) | {"now": 2.0} | more


def test_a_second_in_which_nothing_happens_is_short() -> None:
    assert delta(BEFORE, after()) == {"now": 2.0}


def test_only_what_has_changed_is_told() -> None:
    document = after(totals={"rate": 2.0, "in_flight": 0}, workers=[{"pid": 11, "in_flight": 1}], master=12)
    document["pools"][0]["waiting"] = 3
    document["pools"][0]["servers"][1]["state"] = "down"
    assert delta(BEFORE, document) == {
        "now": 2.0, "totals": {"rate": 2.0}, "workers": [{"pid": 11, "in_flight": 1}], "pools": {"web": {"waiting": 3}},
        "servers": {"web": {"b:1": {"state": "down"}}}, "master": 12}


def test_a_server_that_comes_or_goes_needs_the_whole_document() -> None:
    document = after()
    document["pools"][0]["servers"].pop()
    assert delta(BEFORE, document) is None and delta(document, BEFORE) is None
    assert delta(BEFORE, after(generation=3)) is None
