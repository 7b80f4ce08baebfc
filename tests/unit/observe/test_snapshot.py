"""An instance as a document."""
from __future__ import annotations

import json
import time
from typing import Any

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.observe.server_condition import condition
from prefork_lb.observe.snapshot import Snapshots
from prefork_lb.shared import layout as at
from prefork_lb.shared.balancers import Balancer, write_balancers
from prefork_lb.shared.discovered import Discovered, DiscoveryState, write_discovered
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.statistics import Tally
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import ServerView
from tests.unit.shared.processes import Master

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
        states.note_failure(slots[1], "connection refused")
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
    assert (first["failed_at"], first["failure"], second["failure"]) == (None, "", "connection refused")
    assert second["failed_at"] == pytest.approx(time.time(), abs=60)
    assert document["totals"]["in_flight"] == 1
    assert [worker["in_flight"] for worker in document["workers"]] == [1]
    json.dumps(document)


def test_numbers_and_rates_are_of_the_last_seconds(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(4, 4, 2, statistics=1))
    ledger, clock = Ledger(segment), ManualClock()
    register(segment, ledger, [WEB, PoolEntry("api", [ServerEntry("10.0.0.9:80", 1, 0, False)])])
    tally, snapshots = Tally(segment, ledger.row, one_thread=True), Snapshots(segment, clock)
    first = snapshots.take()
    assert {first["totals"]["rate"], first["pools"][0]["error_rate"], first["pools"][0]["servers"][0]["rate"]} == {None}
    for _ in range(8):
        tally.count_answer(0, 0, 200, 10, 1000, 0.0015)
    tally.count_answer(0, 0, 503, 0, 100, 0.009)
    tally.count_own(0, 504, 0.004)
    tally.count_own(0, 499, 0.004)
    tally.count_without_pool(404)
    clock.advance(2)
    document = snapshots.take()
    totals, (api, web) = document["totals"], document["pools"]
    assert (web["requests"], web["rate"], web["error_rate"]) == (11, 5.5, 1.0)
    assert web["codes"] == {"1xx": 0, "2xx": 8, "3xx": 0, "4xx": 1, "5xx": 2}
    assert 1 < web["p50_ms"] < 2 and 5 < web["p99_ms"] <= 10
    assert (api["requests"], api["rate"], api["p50_ms"], api["servers"][0]["latency_ms"]) == (0, 0, None, None)
    server = web["servers"][0]
    assert (server["bytes_in"], server["bytes_out"], server["latency_ms"]) == (80, 8100, round((8 * 1.5 + 9) / 9, 3))
    assert (totals["requests"], totals["rate"], totals["errors"], totals["error_rate"]) == (12, 6.0, 2, 1.0)
    assert (totals["bytes_in"], totals["bytes_out"], totals["bytes_out_rate"]) == (80, 8100, 4050)
    assert document["statistics"] is True
    for _ in range(2):
        clock.advance(20)
        document = snapshots.take()
    assert (document["totals"]["rate"], document["totals"]["p50_ms"], document["totals"]["requests"]) == (0, None, 12)


def test_sessions_are_told_and_what_a_drained_server_still_has(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(4, 4, 2, sessions=10))
    ledger, states = Ledger(segment), States(segment)
    register(segment, ledger, [WEB, PoolEntry("api", [ServerEntry("a:1", 1, 0, False)])])
    publish(segment, ledger, json.dumps({"pools": {
        "web": {"servers": [{"address": "10.0.0.1:80"}], "sticky": {"mode": "learn", "cookie": "sid"}},
        "api": {"servers": [{"address": "a:1"}], "sticky": {}}}}).encode())
    snapshots = Snapshots(segment)

    def told() -> list[tuple[int | None, str | None]]:
        return [(server["sessions"], server["sessions_left"]) for pool in snapshots.take()["pools"] for server in pool["servers"]]

    assert told() == [(None, None), (0, None), (0, None)]
    keys = SessionKeys(segment.secret, "web")
    SessionTable(segment, ledger).put(keys.session(b"a"), keys.server("10.0.0.1:80"), now_ms())
    with ledger.locked():
        for slot in range(3):
            states.set_admin(slot, Admin.DRAIN)
        states.count_session_request(2)
    snapshots = Snapshots(segment)  # another one: a count of the table is good for a moment
    assert told() == [(1, "1 request of sessions in the last minute"), (1, "1 session"), (0, "")]


def test_where_servers_are_found_and_how_that_goes_is_told(segment: Segment) -> None:
    ledger = Ledger(segment)
    register(segment, ledger, [PoolEntry("web", [], may_be_empty=True)])
    snapshots = Snapshots(segment)
    assert snapshots.take()["pools"][0]["discovery"] is None
    publish(segment, ledger, json.dumps({"pools": {"web": {"discovery": {"file": "/a.json"}}}}).encode())
    for found, expected in ((Discovered(DiscoveryState.WAITING, 0.0, 0, ""), ("waiting", None, "", 0)),
                            (Discovered(DiscoveryState.FAILING, 1000.5, 3, "not JSON"), ("failing", 1000.5, "not JSON", 3))):
        with ledger.locked():
            write_discovered(segment, 0, found)
        told = snapshots.take()["pools"][0]["discovery"]
        assert told == dict(zip(("source", "state", "last_ok", "error", "servers"), ("file /a.json", *expected), strict=True))


def test_the_balancers_that_share_are_told(segment: Segment) -> None:
    snapshots = Snapshots(segment)
    assert snapshots.take()["cluster"] is None

    def told() -> list[tuple[Any, ...]]:
        return [tuple(each[key] for key in ("name", "self", "together", "in_flight", "round_ms", "checks"))
                for each in snapshots.take()["cluster"]]

    write_balancers(segment, [Balancer("b", True, now_ms(), 1, 4, 2500, False), Balancer("a", False, now_ms(), 1, 7, 900, True)])
    assert told() == [("a", False, True, 7, 0.9, True), ("b", True, False, 4, 2.5, False)]  # it goes on by itself
    segment.cells[at.H_TOGETHER] = now_ms()
    assert told() == [("a", False, True, 7, 0.9, True), ("b", True, True, 4, 2.5, False)]


def test_without_statistics_numbers_are_none(segment: Segment) -> None:
    register(segment, Ledger(segment), [WEB])
    document = Snapshots(segment).take()
    assert document["statistics"] is False
    (pool,) = document["pools"]
    assert document["totals"]["requests"] is pool["codes"] is pool["servers"][0]["bytes_in"] is None


@pytest.mark.parametrize(("change", "expected"), [
    ({}, ("ready", "")),
    ({"check": "up"}, ("up", "")),
    ({"check": "down", "note": "connection refused"}, ("down", "connection refused")),
    ({"check": "checking"}, ("checking", "not checked yet")),
    ({"ejection": "ejected", "ejection_reason": "it broke", "ejected_s": 7.6}, ("ejected", "it broke; it is tried again in 8 s")),
    ({"ejection": "trial", "ejection_reason": "it broke", "check": "up"},
     ("trial", "it broke; one request decides whether it comes back")),
    ({"state": "maintenance", "check": "down"}, ("maintenance", "an operator has taken it out: no requests, no checks")),
    ({"state": "drain", "check": "up"}, ("draining", "an operator drains it: it gets no new requests")),
    ({"state": "drain", "leaving": True, "source": "discovery"},
     ("draining", "discovery does not list it any more; it is removed when nothing is left on it")),
])
def test_a_condition_is_a_word_and_its_reason(change: dict[str, Any], expected: tuple[str, str]) -> None:
    assert condition(ServerView(**(WELL | change))) == expected
