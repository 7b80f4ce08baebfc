"""The numbers of the last minute and a half."""
from __future__ import annotations

from typing import Any

from prefork_lb.observe.history import CODES_EVERY, LOOKS, History


def document(rate: float, *addresses: str) -> dict[str, Any]:
    codes = {"2xx": int(rate) * 10}
    servers = [{"address": address, "rate": rate, "latency_ms": None, "codes": codes} for address in addresses]
    totals = dict.fromkeys(("rate", "error_rate", "p50_ms", "p99_ms", "in_flight", "clients", "waiting"), rate)
    return {"totals": totals, "pools": [{"name": "web", "rate": rate, "p99_ms": 2.0, "codes": codes, "servers": servers}]}


def test_it_has_each_number_oldest_first() -> None:
    history = History()
    for rate in (1.0, 2.0):
        history.note(document(rate, "a:1"))
    found = history.document()
    assert found["totals"]["rate"] == found["totals"]["waiting"] == found["pools"]["web"]["rate"] == [1.0, 2.0]
    assert found["servers"]["web"]["a:1"] == {"rate": [1.0, 2.0], "latency_ms": [None, None], "codes": {"2xx": 10}}


def test_it_forgets_what_is_older_than_its_length() -> None:
    history = History()
    for number in range(LOOKS + 5):
        history.note(document(float(number), "a:1"))
    found = history.document()
    assert found["totals"]["rate"] == [float(number) for number in range(5, LOOKS + 5)]


def test_its_codes_are_about_a_minute_old() -> None:
    history = History()
    for second in range(300):
        history.note(document(float(second), "a:1"))
    age = 299 - found_second(history.document()["pools"]["web"]["codes"])
    assert 60 <= age <= 60 + CODES_EVERY


def found_second(codes: dict[str, int]) -> int:
    return codes["2xx"] // 10


def test_a_server_that_went_is_forgotten_and_begins_anew_when_it_comes_back() -> None:
    history = History()
    history.note(document(1.0, "a:1", "b:1"))
    history.note(document(2.0, "a:1"))
    assert list(history.document()["servers"]["web"]) == ["a:1"]
    history.note(document(3.0, "a:1", "b:1"))
    assert history.document()["servers"]["web"]["b:1"]["rate"] == [3.0]


def test_before_the_first_look_there_is_nothing() -> None:
    assert History().document() == {"totals": {}, "pools": {}, "servers": {}}
