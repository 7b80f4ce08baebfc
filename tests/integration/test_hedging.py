"""A second server is asked when the first takes unusually long."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, Connection, fetch
from tests.support.moody import MoodyOrigin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

HEDGE = "[pools.web.retries]\nhedge = true\nattempts = 1\nfloor = 100\nbudget = 0\n"
RESPONSE_S = 30  # longer than any waiting here


@pytest.fixture(params=(GTHREAD, PROXY), ids=str)
def kind(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


@pytest.fixture
def origin() -> Iterator[MoodyOrigin]:
    with MoodyOrigin(2) as origin, origin.released_at_end():
        yield origin


def start(rig: Rig, origin: MoodyOrigin, kind: FrontEnd, retries: str = HEDGE, response: float = RESPONSE_S) -> Balancer:
    """It knows how long responses take, and has hedged none: all requests were sent before the first answer came."""
    text = f"[proxy.timeouts]\nresponse = {response}\n" + pool_text(origin.addresses, "first") + retries
    balancer = rig.balancer(text + "[pools.web.ejection]\nfailures = 0\n", kind, workers=1)
    origin.moods[:] = ["hang", "hang"]
    with Burst(balancer.address, 40, "/") as burst:
        origin.wait_for_in_flight(40)
        origin.release()
        assert burst.statuses() == [200] * 40
    origin.moods[:] = ["well", "well"]
    time.sleep(0.6)  # the delay is worked out a few times a second
    return balancer


@contextlib.contextmanager
def hedged(balancer: Balancer, origin: MoodyOrigin) -> Iterator[Connection]:
    """A request that both servers hold. One that was sent before the delay was worked out has no second server."""
    origin.moods[:] = ["hang", "hang"]
    for _ in range(5):
        with Connection(balancer.address) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n")
            if are_both_asked(origin):
                yield client
                return
        origin.wait_for_in_flight(0)
    raise AssertionError("no request went to both servers")


def are_both_asked(origin: MoodyOrigin) -> bool:
    try:
        return bool(origin.wait_for_in_flight(2, 4))
    except AssertionError:
        return False


def test_the_other_server_answers_for_one_that_hangs(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = start(rig, origin, kind)
    with hedged(balancer, origin):
        pass
    origin.wait_for_in_flight(0)
    origin.moods[:] = ["hang", "well"]
    for _ in range(4):
        response = fetch(balancer.address)
        assert (response.status, response.body) == (200, b"origin-1")
    balancer.wait_until_idle()
    origin.wait_for_in_flight(0)  # the slow ones are given up


def test_the_first_answer_counts_also_if_it_is_the_first_servers(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = start(rig, origin, kind)
    with hedged(balancer, origin) as client:
        origin.release(0)
        assert client.response().body == b"origin-0"
    balancer.wait_until_idle()


@pytest.mark.parametrize("first", ["reset", 1])
def test_one_that_fails_leaves_it_to_the_other(rig: Rig, kind: FrontEnd, origin: MoodyOrigin, first: str | int) -> None:
    balancer = start(rig, origin, kind)
    with hedged(balancer, origin) as client:
        fails, answers = (0, 1) if first == "reset" else (1, 0)
        origin.stop_server(fails)
        wait_until(lambda: "the other one goes on" in balancer.log(), "the failure is told")
        origin.release(answers)
        response = client.response()
        assert (response.status, response.body) == (200, b"origin-%d" % answers)
    balancer.wait_until_idle()


def test_two_that_hang_time_out(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = start(rig, origin, kind, response=10)
    with hedged(balancer, origin) as client:
        assert client.response().status == 504
    balancer.wait_until_idle()


def test_a_client_that_leaves_ends_both(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = start(rig, origin, kind)
    with hedged(balancer, origin):
        pass
    origin.wait_for_in_flight(0)
    balancer.wait_until_idle()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_second_request_where_it_is_not_wanted(rig: Rig, kind: FrontEnd, origin: MoodyOrigin, method: str) -> None:
    """A POST is sent once only, and hedging is off by default."""
    balancer = start(rig, origin, kind, HEDGE if method == "POST" else "[pools.web.retries]\nattempts = 1\n")
    origin.moods[0] = "hang"
    with pytest.raises(TimeoutError):
        fetch(balancer.address, "/", method, timeout=1)
    assert origin.share(1) == 0
