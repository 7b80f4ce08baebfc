"""Changes by the API."""
from __future__ import annotations

import logging
from typing import Any

import pytest

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import Mode, Scaling, asked_roll, asked_servers, write_scaling
from prefork_lb.shared.states import States
from prefork_lb.shared.view import view
from tests.unit.admin.interface import OPERATOR, READER, Interface

SERVER = "/api/v1/pools/web/servers/127.0.0.1:8001"
SERVERS = "/api/v1/pools/web/servers"


def patch(interface: Interface, value: Any, path: str = SERVER, **more: Any) -> Any:
    return interface.ask(path, "PATCH", json=value, **more)


def test_a_server_is_changed_for_all_workers_at_once(guarded: Interface, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    states, slot = States(guarded.segment), guarded.slots["web"][0]
    before = states.changes
    answer = patch(guarded, {"admin": "drain", "weight": 7, "max_connections": 20}, token=OPERATOR)
    assert answer.status_code == 200
    assert {name: answer.json[name] for name in ("admin", "state", "weight", "max_connections")} == {
        "admin": "drain", "state": "draining", "weight": 7, "max_connections": 20}
    assert answer.headers["ETag"] == answer.json["etag"] == guarded.ask(SERVER, token=READER).headers["ETag"]
    assert (states.admin[slot], states.weight_set[slot], states.limit_set(slot)) == (1, 7, 20) and states.changes > before
    # The log and the events tell who has done what.
    assert "ann (127.0.0.1): server 127.0.0.1:8001 of the pool web: admin drain, before: ready; weight 7" in caplog.text
    events = guarded.ask("/api/v1/events", token=READER).json["events"][-3:]
    assert [(event["kind"], event["who"]) for event in events] == [("admin", "ann"), ("weight", "ann"), ("limit", "ann")]
    assert patch(guarded, {"weight": 4.0}, token=OPERATOR).json["weight"] == 4  # a whole number, as some clients write it
    answer = patch(guarded, {"weight": None, "max_connections": None}, token=OPERATOR)
    assert (answer.json["weight"], answer.json["max_connections"], answer.json["admin"]) == (1, 0, "drain")


def test_a_reader_changes_nothing(guarded: Interface) -> None:
    for endpoint in guarded.application.endpoints.all:
        if endpoint.method != "GET" and not endpoint.is_open:
            path = endpoint.path.replace("<name>", "web").replace("<path:address>", "127.0.0.1:8001").replace("<id>", "1")
            assert guarded.ask(path, endpoint.method, READER, json={"admin": "drain"}).status_code == 403
    assert guarded.ask(SERVER, token=READER).json["admin"] == "ready"


@pytest.mark.parametrize(("value", "place"), [
    ({}, None), ({"weight": 0}, "weight"), ({"weight": 1001}, "weight"), ({"weight": 1.5}, "weight"), ({"weight": "2"}, "weight"),
    ({"weight": True}, "weight"), ({"max_connections": -1}, "max_connections"), ({"max_connections": 1 << 70}, "max_connections"),
    ({"admin": "down"}, "admin"), ({"admin": None}, "admin"), ({"color": "red"}, None), ([], None), ("drain", None),
])
def test_a_bad_change_is_told_with_its_place(interface: Interface, value: Any, place: str | None) -> None:
    answer = patch(interface, value)
    assert (answer.status_code, answer.json.get("place")) == (400, place), answer.text
    assert interface.ask(SERVER).json["etag"] == '"ready-0-0"'


def test_a_change_that_was_meant_for_another_state_is_refused(interface: Interface) -> None:
    seen = interface.ask(SERVER).headers["ETag"]
    assert patch(interface, {"weight": 3}, headers={"If-Match": seen}).status_code == 200
    late = patch(interface, {"admin": "drain"}, headers={"If-Match": seen})
    assert (late.status_code, late.mimetype) == (412, "application/problem+json")
    assert interface.ask(SERVER, "DELETE", headers={"If-Match": seen}).status_code == 412
    assert interface.ask(SERVER).json["admin"] == "ready"
    now = interface.ask(SERVER).headers["ETag"]
    for tags in ("", "nonsense", f"W/{now}"):
        assert patch(interface, {"admin": "drain"}, headers={"If-Match": tags}).status_code == 412
    for tags in (f'"other", {now}', "*"):
        assert patch(interface, {"admin": "drain"}, headers={"If-Match": tags}).status_code == 200


@pytest.mark.parametrize(("path", "status"), [
    ("/api/v1/pools/none/servers/127.0.0.1:8001", 404), ("/api/v1/pools/web/servers/127.0.0.1:1", 404),
    ("/api/v1/pools/web/servers/nonsense", 404),
])
def test_what_there_is_not_cannot_be_changed(interface: Interface, path: str, status: int) -> None:
    assert patch(interface, {"weight": 3}, path).status_code == status
    assert interface.ask(path, "DELETE").status_code == status


def test_a_browser_needs_the_value_that_only_our_page_knows(interface: Interface) -> None:
    own = {"Origin": "http://127.0.0.1:9900", "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}):
        assert patch(interface, {"weight": 3}, headers=own | headers).status_code == 403
        assert patch(interface, {"weight": 3}, headers={"Cookie": "any=one"} | headers).status_code == 403
    csrf = interface.ask("/api/v1/session").json["csrf"]
    assert patch(interface, {"weight": 3}, headers=own | {"X-CSRF-Token": csrf}).status_code == 200


def test_a_token_in_a_field_needs_no_more(guarded: Interface) -> None:
    """No page of another origin can make a browser send the field."""
    assert patch(guarded, {"weight": 3}, token=OPERATOR, headers={"Cookie": "any=one"}).status_code == 200
    crossed = {"Origin": "https://evil.example"}
    assert patch(guarded, {"weight": 3}, token=OPERATOR, headers=crossed).status_code == 403


def test_a_form_of_another_page_changes_nothing(interface: Interface) -> None:
    """What a browser that sends no Origin could be made to send: no form has this content type."""
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        answer = interface.ask(SERVERS, "POST", data='{"address": "10.0.0.1:80"}', headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert interface.ask("/api/v1/reload", "POST", data="a=b", headers={"Content-Type": kind}).status_code == 415
    assert len(interface.ask(SERVERS).json["servers"]) == 2


# -- servers that come and go -----------------------------------------------------------------------------------------


def test_a_server_is_added_and_removed(interface: Interface) -> None:
    added = interface.ask(SERVERS, "POST", json={"address": "127.0.0.1:8009", "weight": 3, "max_connections": 9})
    assert (added.status_code, added.headers["Location"]) == (201, f"{SERVERS}/127.0.0.1%3A8009")
    assert {name: added.json[name] for name in ("address", "origin", "weight", "max_connections", "backup")} == {
        "address": "127.0.0.1:8009", "origin": "runtime", "weight": 3, "max_connections": 9, "backup": False}
    assert interface.ask(added.headers["Location"]).json["address"] == "127.0.0.1:8009"
    assert interface.ask(SERVERS, "POST", json={"address": "127.0.0.1:8009"}).status_code == 409
    assert interface.ask(added.headers["Location"], "DELETE").status_code == 204
    assert interface.ask(added.headers["Location"]).status_code == 404
    assert interface.ask(added.headers["Location"], "DELETE").status_code == 404


@pytest.mark.parametrize(("value", "status"), [
    ({}, 400), ({"address": "nonsense"}, 400), ({"address": "127.0.0.1:0"}, 400), ({"address": "http://127.0.0.1:80/path"}, 400),
    ({"address": 5}, 400), ({"address": "127.0.0.1:8009", "weight": 0}, 400), ({"address": "127.0.0.1:8009", "backup": 1}, 400),
    ({"address": "127.0.0.1:8009", "more": 1}, 400), ({"address": "127.0.0.1:8002"}, 409), ({"address": "a" * 1000}, 400),
])
def test_a_bad_server_is_not_added(interface: Interface, value: Any, status: int) -> None:
    assert interface.ask(SERVERS, "POST", json=value).status_code == status
    assert len(interface.ask(SERVERS).json["servers"]) == 2
    assert interface.ask("/api/v1/pools/none/servers", "POST", json={"address": "127.0.0.1:8009"}).status_code == 404


def test_a_busy_server_is_removed_by_force_and_the_last_one_is_not(interface: Interface) -> None:
    with interface.ledger.locked():
        interface.ledger.claim(interface.slots["web"][0])
    busy = interface.ask(SERVER, "DELETE")
    assert busy.status_code == 409 and "1 in flight" in busy.json["detail"]
    assert interface.ask(f"{SERVER}?force=maybe", "DELETE").status_code == 400
    assert interface.ask(f"{SERVER}?force=true", "DELETE").status_code == 204
    assert interface.ask(f"{SERVERS}/127.0.0.1:8002?force=true", "DELETE").status_code == 409


def test_a_pool_that_scales_gets_a_number_of_servers(guarded: Interface) -> None:
    number = 0
    with Ledger(guarded.segment, takes_row=False).locked():
        write_scaling(guarded.segment, number, Scaling(Mode.AUTO, 8, 4, 2, 1, 0, "why"))
    name = next(pool.name for pool in view(guarded.segment).pools if pool.scaling is not None)
    path = f"/api/v1/pools/{name}"
    answer = patch(guarded, {"scale": 6}, path, token=OPERATOR)
    assert (answer.status_code, answer.json["scaling"]["wanted"], asked_servers(guarded.segment, number)) == (200, 4, 6)
    assert patch(guarded, {"scale": "auto"}, path, token=OPERATOR).status_code == 200
    assert asked_servers(guarded.segment, number) is None
    for wrong, status in (({"scale": 9}, 400), ({"scale": "many"}, 400), ({"scale": -1}, 400), ({}, 400)):
        assert patch(guarded, wrong, path, token=OPERATOR).status_code == status
    assert patch(guarded, {"scale": 2}, "/api/v1/pools/none", token=OPERATOR).status_code == 404


def test_the_servers_of_a_pool_that_scales_are_replaced(guarded: Interface) -> None:
    with Ledger(guarded.segment, takes_row=False).locked():
        write_scaling(guarded.segment, 0, Scaling(Mode.AUTO, 8, 4, 2, 1, 0, "why"))
    name = next(pool.name for pool in view(guarded.segment).pools if pool.scaling is not None)
    path = f"/api/v1/pools/{name}/roll"
    assert guarded.ask(path, "POST", json={"surge": 9}, token=OPERATOR).status_code == 400
    answer = guarded.ask(path, "POST", json={}, token=OPERATOR)
    assert (answer.status_code, answer.json["scaling"]["rolling"]) == (202, True)
    roll = asked_roll(guarded.segment, 0)
    assert roll is not None and roll.surge == 1
    assert guarded.ask(path, "POST", json={}, token=OPERATOR).status_code == 409


def test_the_weights_of_a_split_are_set(guarded: Interface, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    [split] = guarded.ask("/api/v1/splits", token=READER).json["splits"]
    path = f"/api/v1/splits/{split['id']}"
    seen = guarded.ask(path, token=READER)
    assert seen.json == split and seen.headers["ETag"] == split["etag"]
    assert {name: split[name] for name in ("route", "asks", "cookie", "weights", "weights_configured")} == {
        "route": 1, "asks": "split.test; any path", "cookie": "", "weights": {"web": 95, "api": 5},
        "weights_configured": {"web": 95, "api": 5}}
    answer = patch(guarded, {"weights": {"api": 20}}, path, token=OPERATOR, headers={"If-Match": split["etag"]})
    assert (answer.status_code, answer.json["weights"]) == (200, {"web": 95, "api": 20})
    assert answer.headers["ETag"] == answer.json["etag"] != split["etag"]
    late = patch(guarded, {"weights": {"api": 30}}, path, token=OPERATOR, headers={"If-Match": split["etag"]})
    assert (late.status_code, late.mimetype) == (412, "application/problem+json")
    assert "split of the route 1 (split.test; any path): web 95, api 20, before: web 95, api 5" in caplog.text
    event = guarded.ask("/api/v1/events", token=READER).json["events"][-1]
    assert (event["kind"], event["who"]) == ("split", "ann")
    metrics = guarded.ask("/metrics", token=READER).text
    assert 'prefork_lb_split_weight{pool="api",route="1"} 20.0' in metrics
    assert patch(guarded, {"weights": {"api": None}}, path, token=OPERATOR).json["etag"] == split["etag"]


@pytest.mark.parametrize(("value", "place"), [
    ({}, None), ({"weights": {}}, "weights"), ({"weights": {"api": -1}}, "weights[...]"),
    ({"weights": {"api": 1.5}}, "weights[...]"), ({"weights": {"api": 1_000_001}}, "weights[...]"),
    ({"weights": {"other": 1}}, None), ({"weights": {"api": 0, "web": 0}}, None), ({"weights": {"api": 1}, "more": 1}, None),
])
def test_bad_weights_are_told_with_their_place(interface: Interface, value: Any, place: str | None) -> None:
    [split] = interface.ask("/api/v1/splits").json["splits"]
    answer = patch(interface, value, f"/api/v1/splits/{split['id']}")
    assert (answer.status_code, answer.json.get("place")) == (400, place), answer.text
    assert interface.ask("/api/v1/splits").json["splits"] == [split]
    assert patch(interface, {"weights": {"api": 1}}, "/api/v1/splits/1").status_code == 404
