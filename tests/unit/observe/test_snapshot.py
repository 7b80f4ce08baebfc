"""An instance as a document."""
from __future__ import annotations

import json
from typing import Any

import pytest

from prefork_lb.observe.conditions import condition
from prefork_lb.observe.snapshot import Snapshots
from prefork_lb.shared.desired import publish
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import ServerView

WEB = PoolEntry("web", [ServerEntry("10.0.0.1:80", 2, 7, False), ServerEntry("unix:/run/b.sock", 1, 0, True)])
CONFIG = {"pools": {"web": {"servers": [{"address": "10.0.0.1:80"}], "policy": "first", "sticky": {"mode": "source"}}}}
WELL: dict[str, Any] = {"pool": "web", "address": "a:1", "weight": 1, "max_connections": 0, "backup": False, "in_flight": 0,
                        "requests": 0, "failures": 0, "state": "ready", "check": "none", "note": "", "checked_s": None,
                        "ejected_s": 0.0, "usable": True}


def test_a_document_says_what_is_in_shared_memory_and_in_the_configuration(segment: Segment) -> None:
    ledger, states = Ledger(segment), States(segment)
    slots = register(segment, ledger, [WEB])["web"].slots
    with ledger.locked():
        ledger.claim(slots[0])
        states.set_weight(slots[0], 5)
        states.set_admin(slots[1], Admin.DRAIN)
    snapshots = Snapshots(segment)
    assert snapshots.take()["pools"][0]["policy"] is None  # no configuration is in force yet
    publish(segment, ledger, json.dumps(CONFIG).encode())
    document = snapshots.take()
    (pool,) = document["pools"]
    assert (pool["name"], pool["in_flight"]) == ("web", 1)
    assert (pool["policy"], pool["mode"], pool["sticky"]) == ("first", "proxy", "source")
    first, second = pool["servers"]
    assert (first["address"], first["weight"], first["weight_configured"], first["max_connections"]) == ("10.0.0.1:80", 5, 2, 7)
    assert (first["state"], second["state"], second["backup"]) == ("ready", "draining", True)
    assert document["totals"]["in_flight"] == 1
    assert [worker["in_flight"] for worker in document["workers"]] == [1]
    json.dumps(document)


@pytest.mark.parametrize(("change", "expected"), [
    ({}, ("ready", "")),
    ({"check": "up"}, ("up", "")),
    ({"check": "down", "note": "connection refused"}, ("down", "connection refused")),
    ({"check": "checking"}, ("checking", "not checked yet")),
    ({"ejection": "ejected", "ejected_s": 7.6}, ("ejected", "its requests failed; it is tried again in 8 s")),
    ({"ejection": "trial", "check": "up"}, ("trial", "it was ejected; one request decides whether it comes back")),
    ({"state": "maintenance", "check": "down"}, ("maintenance", "an operator has taken it out: no requests, no checks")),
    ({"state": "drain", "check": "up"}, ("draining", "an operator drains it: it gets no new requests")),
])
def test_a_condition_is_a_word_and_its_reason(change: dict[str, Any], expected: tuple[str, str]) -> None:
    assert condition(ServerView(**(WELL | change))) == expected
