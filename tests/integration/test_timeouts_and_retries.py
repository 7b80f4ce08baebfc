"""What happens when a server is slow, silent or gone: a 504 that names the phase, or another server."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text
from tests.support.client import Burst, Connection, Truncated, fetch, request_bytes, timed
from tests.support.origin import Origin
from tests.support.ports import refusing_address, silent_address
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.waiting import wait_until

CONNECT_S, RESPONSE_S, IDLE_S = 0.5, 0.7, 0.8
# A timeout may come late on a busy machine, but not as late as the default would: 60 s.
LATE_S = 20.0

TIMEOUTS = f"[proxy.timeouts]\nconnect = {CONNECT_S}\nidle = {IDLE_S}\n"
# Only where it is the subject: elsewhere the scripted server may stand still for a while.
IMPATIENT = f'paths = ["/impatient/"]\npath = "/{{rest}}"\ntimeouts = {{ response = {RESPONSE_S} }}\n'


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One worker, so that a kept-alive connection is known to be the next one used."""
    with Rig(tmp_path_factory.mktemp("timeouts")) as rig, refusing_address() as refusing, silent_address() as silent:
        origin = rig.origin(2)
        first, second = origin.addresses
        pools = {
            "live": ([first], ""),
            "silent": ([silent], ""),
            "half-silent": ([silent, first], ""),
            "refusing": ([refusing], ""),
            "half-refusing": ([refusing, first], ""),
            "no-retry": ([refusing, first], "[pools.no-retry.retries]\nattempts = 1"),
            "both": ([first, second], ""),
        }
        text = TIMEOUTS + "".join(
            pool_text(servers, "round-robin", name, more) for name, (servers, more) in pools.items()
        )
        routes = [f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n' for name in pools]
        text += "".join(route + more for route in routes for more in ("", IMPATIENT))
        yield Setup(rig.balancer(text, front_end, workers=1), origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


def host(name: str) -> list[tuple[str, str]]:
    return [("Host", f"{name}.example")]


def test_a_server_that_does_not_accept_is_a_504_that_names_connect(setup: Setup) -> None:
    with timed() as took:
        response = fetch(setup.balancer.address, fields=host("silent"))
    assert response.status == 504
    assert "connect" in response.body.decode().lower()
    assert CONNECT_S * 0.9 <= took[0] < LATE_S


def test_a_server_that_does_not_answer_is_a_504_that_names_response(setup: Setup) -> None:
    with timed() as took:
        response = fetch(setup.balancer.address, "/impatient/hold", fields=host("live"))
    assert response.status == 504
    assert "response" in response.body.decode().lower()
    assert RESPONSE_S * 0.9 <= took[0] < LATE_S
    setup.origin.wait_for_in_flight(0)  # the connection to the server is closed: it can stop working


def test_a_request_that_timed_out_is_not_sent_to_another_server(setup: Setup) -> None:
    start = len(setup.origin.arrivals)
    assert fetch(setup.balancer.address, "/impatient/hold", fields=host("both")).status == 504
    assert len(setup.origin.arrivals) - start == 1


def test_a_body_that_stands_still_is_cut_and_does_not_look_whole(setup: Setup) -> None:
    for framing in ("length", "chunked"):
        with timed() as took, pytest.raises(Truncated) as caught, Connection(setup.balancer.address) as connection:
            connection.request(f"/stall-body?framing={framing}", fields=host("live"))
        assert caught.value.response.status == 200
        assert len(caught.value.response.body) == 100
        assert IDLE_S * 0.9 <= took[0] < LATE_S
        setup.origin.wait_for_in_flight(0)


def test_a_slow_body_is_not_cut_while_something_comes(setup: Setup) -> None:
    """Longer in all than any timeout: the idle timeout counts from the last byte."""
    def comes() -> None:
        response = fetch(setup.balancer.address, "/drip?n=10&size=50&gap=0.2", fields=host("live"))
        assert (response.status, len(response.body)) == (200, 500)

    undisturbed(comes, IDLE_S / 4)


def test_a_client_that_stands_still_in_its_upload_is_let_go(setup: Setup) -> None:
    with timed() as took, Connection(setup.balancer.address) as connection:
        fields = [*host("live"), ("Content-Length", "1000")]
        connection.send(request_bytes("/upload", "POST", fields=fields) + b"only this")
        try:
            response = connection.response("POST")
            assert response.status == 408, response
        except Truncated as exc:
            assert exc.response.status == 0, exc
    assert IDLE_S * 0.9 <= took[0] < LATE_S
    setup.origin.wait_for_in_flight(0)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_on_another_server(setup: Setup, method: str) -> None:
    target, body = ("/upload", b"x" * 5000) if method == "POST" else ("/", b"")
    statuses = [
        fetch(setup.balancer.address, target, method, fields=host("half-refusing"), body=body).status for _ in range(12)
    ]
    assert statuses == [200] * 12


def test_a_connection_that_times_out_is_tried_on_another_server(setup: Setup) -> None:
    statuses = [fetch(setup.balancer.address, fields=host("half-silent")).status for _ in range(4)]
    assert statuses == [200] * 4


def test_one_attempt_means_no_other_server(setup: Setup) -> None:
    statuses = [fetch(setup.balancer.address, fields=host("no-retry")).status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 502, 502]  # turns: every second one meets the server that refuses


def test_when_every_server_refuses_it_is_a_502(setup: Setup) -> None:
    assert fetch(setup.balancer.address, fields=host("refusing")).status == 502


def start_afresh(setup: Setup) -> None:
    """End every kept-alive connection, so that a test knows which ones there are."""
    setup.origin.close_idle_connections()
    wait_until(lambda: not any(server.links for server in setup.origin.servers), "no connection is left")


def next_turn_is(setup: Setup, pool: str, server: int) -> None:
    """Let turns pass until the next request goes to `server` of the two."""
    start = len(setup.origin.arrivals)
    assert fetch(setup.balancer.address, fields=host(pool)).status == 200
    if setup.origin.order(start) == [server]:
        assert fetch(setup.balancer.address, fields=host(pool)).status == 200


def test_a_get_on_a_connection_that_turned_out_dead_is_sent_again(setup: Setup) -> None:
    start_afresh(setup)
    next_turn_is(setup, "both", 0)
    assert fetch(setup.balancer.address, "/stale", fields=host("both")).status == 200
    next_turn_is(setup, "both", 0)
    start = len(setup.origin.arrivals)
    response = fetch(setup.balancer.address, "/echo", fields=host("both"))
    assert response.status == 200
    arrived = setup.origin.arrivals[start:]
    assert [arrival.target for arrival in arrived] == ["/echo", "/echo"], "the stale connection was not used at all"
    assert [arrival.server for arrival in arrived] == [0, 1]


def test_a_get_is_sent_again_to_the_only_server_there_is(setup: Setup) -> None:
    start_afresh(setup)
    assert fetch(setup.balancer.address, "/stale", fields=host("live")).status == 200
    start = len(setup.origin.arrivals)
    assert fetch(setup.balancer.address, "/echo", fields=host("live")).status == 200
    assert len(setup.origin.arrivals) - start == 2


def test_a_post_on_a_connection_that_turned_out_dead_is_not_sent_again(setup: Setup) -> None:
    start_afresh(setup)
    assert fetch(setup.balancer.address, "/stale", fields=host("live")).status == 200
    start = len(setup.origin.arrivals)
    response = fetch(setup.balancer.address, "/upload", "POST", fields=host("live"), body=b"order")
    assert response.status == 502
    assert len(setup.origin.arrivals) - start == 1


def test_a_new_connection_that_the_server_closes_without_an_answer_is_not_tried_again(setup: Setup) -> None:
    start_afresh(setup)
    start = len(setup.origin.arrivals)
    assert fetch(setup.balancer.address, "/no-answer", "POST", fields=host("live"), body=b"order").status == 502
    assert len(setup.origin.arrivals) - start == 1


def test_connections_are_kept_and_used_again(setup: Setup) -> None:
    before = setup.origin.servers[0].accepted
    for _ in range(10):
        assert fetch(setup.balancer.address, fields=host("live")).status == 200
    assert setup.origin.servers[0].accepted - before <= 1


def test_a_connection_that_the_server_closed_while_idle_is_never_used(setup: Setup) -> None:
    """Even a POST succeeds: that the connection is closed is seen before anything is written to it."""
    start_afresh(setup)
    for _ in range(5):
        assert fetch(setup.balancer.address, "/close-after", fields=host("live")).status == 200
        wait_until(lambda: not setup.origin.servers[0].links, "the server has closed the connection")
        told = fetch(setup.balancer.address, "/upload", "POST", fields=host("live"), body=b"order")
        assert told.status == 200
        start_afresh(setup)


def test_many_connections_closed_while_idle_cost_no_request(setup: Setup, front_end: FrontEnd) -> None:
    balancer, origin = setup
    if front_end.worker_class != "sync":  # a sync worker has one at most
        with Burst(balancer.address, 8, "/hold", host="live.example") as burst:
            origin.wait_for_in_flight(8)
            origin.release()
            assert burst.statuses() == [200] * 8
    assert fetch(balancer.address, fields=host("live")).status == 200
    start_afresh(setup)
    statuses = [
        fetch(balancer.address, "/upload", "POST", fields=host("live"), body=b"order").status for _ in range(10)
    ]
    assert statuses == [200] * 10


def test_a_server_that_comes_back_is_used_again(setup: Setup) -> None:
    balancer, origin = setup
    origin.stop_server(0)
    try:
        assert fetch(balancer.address, fields=host("live")).status == 502
        assert [fetch(balancer.address, fields=host("both")).status for _ in range(4)] == [200] * 4
    finally:
        origin.restart_server(0)
    assert fetch(balancer.address, fields=host("live")).status == 200
