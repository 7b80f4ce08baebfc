"""What readers get."""
from __future__ import annotations

import json

import pytest

from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.published_config import publish
from tests.unit.admin.interface import CONFIG, Interface


def test_servers_are_found_by_pool_and_address(interface: Interface) -> None:
    assert [pool["name"] for pool in interface.ask("/api/v1/pools").json["pools"]] == ["api", "web"]
    assert len(interface.ask("/api/v1/pools/web").json["servers"]) == 2
    assert len(interface.ask("/api/v1/pools/web/servers").json["servers"]) == 2
    for address in ("127.0.0.1:8001", "127.0.0.1%3A8001"):
        assert interface.ask(f"/api/v1/pools/web/servers/{address}").json["address"] == "127.0.0.1:8001"
    for address in ("https://127.0.0.1:8003", "https%3A%2F%2F127.0.0.1%3A8003", "unix:/run/api.sock", "unix:%2Frun%2Fapi.sock"):
        assert interface.ask(f"/api/v1/pools/api/servers/{address}").status_code == 200
    assert len(interface.ask("/api/v1/workers").json["workers"]) == 1


NOT_THERE = ("/api/v1", "/api/v2/instance", "/api/v1/pools/none", "/api/v1/pools/web/servers/127.0.0.1:1",
             "/api/v1/pools/none/servers/127.0.0.1:8001", "/static/../application.py", "/static/..%2fapplication.py",
             "/static/%2e%2e/application.py", "/static//etc/passwd", "/static/none.js")
BAD = ("/api/v1/events?limit=0", "/api/v1/events?limit=x", "/api/v1/events?after=-1", "/api/v1/events?after=" + "9" * 5000)


@pytest.mark.parametrize(("path", "status"), [*((path, 404) for path in NOT_THERE), *((path, 400) for path in BAD)])
def test_what_there_is_not_is_a_problem_in_words(interface: Interface, path: str, status: int) -> None:
    answer = interface.ask(path)
    assert (answer.status_code, answer.mimetype, answer.json["status"]) == (status, "application/problem+json", status)
    assert answer.json["detail"] and len(answer.data) < 1000


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "FOO", "PATCH"])
def test_other_methods_are_refused_with_those_that_there_are(interface: Interface, method: str) -> None:
    answer = interface.ask("/api/v1/instance", method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_a_body(interface: Interface) -> None:
    for path in ("/", "/api/v1/instance", "/api/v1/stream", "/healthz"):
        answer = interface.ask(path, "HEAD")
        assert (answer.status_code, answer.data) == (200, b"")


def test_metrics_come_as_the_scraper_wants_them(interface: Interface) -> None:
    assert b'prefork_lb_in_flight{pool="web",server="127.0.0.1:8001"} 0.0' in interface.ask("/metrics").data
    answer = interface.ask("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.mimetype == "application/openmetrics-text" and answer.data.endswith(b"# EOF\n")


def test_the_configuration_is_shown_without_its_secrets(interface: Interface) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["pools"]["web"]["health"] = {"headers": {"Authorization": "Bearer topsecret"}}
    publish(interface.segment, interface.ledger, json.dumps(config).encode())
    answer = interface.ask("/api/v1/config")
    assert "topsecret" not in answer.text
    assert answer.json["pools"]["web"]["health"]["headers"] == {"Authorization": "***"}
    assert answer.json["pools"]["web"]["servers"][0]["address"] == "127.0.0.1:8001"


def test_events_come_by_number(interface: Interface) -> None:
    first = interface.ask("/api/v1/events").json["last"]
    with interface.ledger.locked():
        for number in range(5):
            record_event(interface.segment, EventKind.AUDIT, f"deed {number}", "web", "127.0.0.1:8001", "ann")
    found = interface.ask(f"/api/v1/events?after={first}&limit=3").json
    assert [event["text"] for event in found["events"]] == ["deed 2", "deed 3", "deed 4"]
    assert found["last"] == found["events"][-1]["seq"] == first + 5
    assert {name: found["events"][0][name] for name in ("kind", "pool", "server", "who")} == {
        "kind": "audit", "pool": "web", "server": "127.0.0.1:8001", "who": "ann"}
    assert interface.ask("/api/v1/events?after=1000").json["events"] == []


# -- the stream -------------------------------------------------------------------------------------------------------


def messages(answer: object, count: int) -> list[dict[str, str]]:
    """The next messages of a stream, as fields."""
    found = []
    for text in answer:  # type: ignore[attr-defined]
        found.append(dict(line.partition(": ")[::2] for line in text.decode().splitlines() if line))
        if len(found) == count:
            break
    return found


def test_a_stream_begins_with_the_document_and_goes_on_with_changes_and_events(interface: Interface) -> None:
    stream = interface.ask("/api/v1/stream").iter_encoded()
    first, history = messages(stream, 2)
    assert first["event"] == "snapshot" and json.loads(first["data"])["pools"][0]["name"] == "api"
    assert history["event"] == "history" and json.loads(history["data"])["totals"] == {}
    with interface.ledger.locked():
        record_event(interface.segment, EventKind.AUDIT, "a deed")
    interface.publisher.look()
    event, delta = messages(stream, 2)
    assert (event["event"], json.loads(event["data"])["text"]) == ("event", "a deed")
    assert int(event["id"]) == int(first["id"]) + 1
    assert delta["event"] == "delta" and "now" in json.loads(delta["data"])
    # A page that was too slow for a change gets the whole again.
    interface.publisher.look()
    interface.publisher.look()
    assert messages(stream, 1)[0]["event"] == "snapshot"


def test_a_page_that_comes_back_gets_the_events_that_it_missed(interface: Interface) -> None:
    with interface.ledger.locked():
        for number in range(3):
            record_event(interface.segment, EventKind.AUDIT, f"deed {number}")
    newest = interface.ask("/api/v1/events").json
    # Beyond the newest: the page has seen another instance.
    for known, missed in ((newest["last"] - 2, newest["events"][-2:]), (newest["last"] + 100, newest["events"])):
        stream = interface.ask("/api/v1/stream", headers={"Last-Event-ID": str(known)}).iter_encoded()
        assert [json.loads(message["data"]) for message in messages(stream, 2 + len(missed))[2:]] == missed
    stream = interface.ask("/api/v1/stream", headers={"Last-Event-ID": str(newest["last"])}).iter_encoded()
    messages(stream, 2)
    interface.publisher.look()
    assert messages(stream, 1)[0]["event"] == "delta"


def test_streams_leave_threads_for_requests(interface: Interface) -> None:
    streams = [interface.ask("/api/v1/stream") for _ in range(24)]
    refused = interface.ask("/api/v1/stream")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
    streams.pop().close()
    assert interface.ask("/api/v1/stream").status_code == 200
