"""Clients that send or read slowly hold no server that others need."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.support.balancer import FRONT_ENDS, GTHREAD, PROXY, SYNC, Balancer, FrontEnd, pool_text
from tests.support.client import Connection, Truncated, fetch, request_bytes
from tests.support.memory import MemoryWatch
from tests.support.origin import Origin
from tests.support.pattern import fits_pattern, pattern
from tests.support.rig import Rig
from tests.support.waiting import PATIENCE_S, wait_until

MIB = 1024 * 1024
TIMES = "[proxy.timeouts]\nbody = 0.6\n[proxy.limits]\nbody_rate = 1000\n"
CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.fixture(params=FRONT_ENDS, ids=str)
def kind(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


class Setup:
    """Balancers that tests share: one for a kind of worker and a configuration, with an origin of its own."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._started: dict[tuple[FrontEnd, str], tuple[Balancer, Origin]] = {}
        self._log_start = 0

    def start(self, front_end: FrontEnd, more: str = "") -> tuple[Balancer, Origin]:
        """One server that takes two requests at a time. The origin has forgotten the arrivals of tests before."""
        if (front_end, more) not in self._started:
            origin = self._rig.origin(1)
            servers = [f'{{ address = "{address}", max_connections = 2 }}' for address in origin.addresses]
            started = self._rig.balancer(more + pool_text(servers), front_end, workers=8 if front_end is SYNC else 2)
            self._started[front_end, more] = started, origin
        balancer, origin = self._started[front_end, more]
        balancer.wait_until_idle()
        origin.arrivals.clear()
        self._log_start = len(balancer.log())
        return balancer, origin

    def log(self, balancer: Balancer) -> str:
        """What the log has of this test."""
        return balancer.log()[self._log_start:]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("slow")) as rig:
        yield Setup(rig)


@contextlib.contextmanager
def connections(balancer: Balancer, count: int) -> Iterator[list[Connection]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(balancer.address)) for _ in range(count)]


def claims(balancer: Balancer) -> int:
    return sum(balancer.status().workers.values())


def test_clients_that_send_small_bodies_slowly_hold_no_server(setup: Setup, kind: FrontEnd) -> None:
    balancer, origin = setup.start(kind)
    with connections(balancer, 6) as slow:
        for connection in slow:
            connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", "20")]) + bytes(pattern(0, 1)))
        for sent in range(1, 19):
            assert fetch(balancer.address).status == 200
            for connection in slow:
                connection.send(bytes(pattern(sent, 1)))
        assert claims(balancer) == 0 and not [arrival for arrival in origin.arrivals if arrival.target == "/upload"]
        for connection in slow:
            connection.send(bytes(pattern(19, 1)))
            assert connection.response("POST").json() == {"received": 20, "fits": True, "trailers": {}}
    balancer.wait_until_idle()


def test_chunked_bodies_are_collected_when_the_site_says_so(setup: Setup) -> None:
    balancer, _ = setup.start(PROXY, "[proxy.buffers]\nchunked = true\n")
    with connections(balancer, 3) as slow:
        for connection in slow:
            connection.send(request_bytes("/upload", "POST", fields=[CHUNKED]) + b"1\r\n" + bytes(pattern(0, 1)) + b"\r\n")
        assert fetch(balancer.address).status == 200 and claims(balancer) == 0
        for connection in slow:
            connection.send(b"0\r\n\r\n")
            assert connection.response("POST").json()["received"] == 1


def test_a_client_that_leaves_while_its_body_is_collected_leaves_nothing_behind(
        setup: Setup, kind: FrontEnd) -> None:
    balancer, origin = setup.start(kind)
    with connections(balancer, 4) as leaving:
        for connection in leaving:
            connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", "20")]) + b"abc")
    assert fetch(balancer.address).status == 200
    balancer.wait_until_idle()
    log = setup.log(balancer)
    assert "failed" not in log and "ejected" not in log
    assert not [arrival for arrival in origin.arrivals if arrival.target == "/upload"]


@pytest.mark.parametrize("framing", ["length", "chunked", "large"])
def test_a_body_below_the_least_rate_is_answered_with_408(setup: Setup, kind: FrontEnd, framing: str) -> None:
    """A byte now and then never lets the idle timeout come, which is 60 s."""
    balancer, _ = setup.start(kind, TIMES)
    field = CHUNKED if framing == "chunked" else ("Content-Length", "20" if framing == "length" else "1000000")
    with Connection(balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[field]))
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not connection.has_input(0.1) and time.monotonic() - began < PATIENCE_S:
                connection.send(b"1\r\nx\r\n" if framing == "chunked" else b"x")
        assert connection.response("POST").status == 408
    wait_until(lambda: "408: the client sent its body more slowly than 1000 bytes a second" in setup.log(balancer), "the log", 20)
    balancer.wait_until_idle()
    assert "ejected" not in setup.log(balancer)


@pytest.mark.parametrize("front_end", (GTHREAD, PROXY), ids=str)
def test_a_body_above_the_least_rate_may_take_its_time(setup: Setup, front_end: FrontEnd) -> None:
    """What comes first is enough for 20 s, in which the machine may do other things; without it the time would be 0.6 s."""
    balancer, _ = setup.start(front_end, TIMES)
    sent, whole = 20_000, 23_000
    with Connection(balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", str(whole))]) + bytes(pattern(0, sent)))
        while sent < whole:
            assert not connection.has_input(0.1)
            connection.send(bytes(pattern(sent, 250)))
            sent += 250
        assert connection.response("POST").json() == {"received": whole, "fits": True, "trailers": {}}


@pytest.mark.parametrize("front_end", (SYNC, GTHREAD, PROXY), ids=str)
def test_nonsense_in_a_chunked_body_is_refused_at_once(setup: Setup, front_end: FrontEnd) -> None:
    """Not only when its line has an end."""
    balancer, _ = setup.start(front_end)
    for begin in (b"", b"3\r\nabc\r\n"):
        with Connection(balancer.address) as connection:
            connection.send(request_bytes("/upload", "POST", fields=[CHUNKED]) + begin + b"x" * 20)
            assert connection.response("POST").status == 400
            assert connection.ended()
    balancer.wait_until_idle()


def test_a_request_behind_a_chunked_body_is_the_next_one(setup: Setup) -> None:
    """What the decoder of a WSGI front end has received too much goes back to gunicorn."""
    balancer, _ = setup.start(GTHREAD)
    with Connection(balancer.address) as connection:
        one = request_bytes("/upload", "POST", fields=[CHUNKED]) + b"3\r\n" + bytes(pattern(0, 3)) + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
        for behind in (b"", request_bytes("/bytes?n=7")):
            connection.send(one + behind)
            assert connection.response("POST").json() == {"received": 3, "fits": True, "trailers": {"X-Sum": "1"}}
        assert len(connection.response().body) == 7


def test_bytes_behind_an_answer_in_the_middle_of_a_chunked_body_are_no_request(setup: Setup) -> None:
    balancer, origin = setup.start(GTHREAD)
    with Connection(balancer.address) as connection:
        connection.send(request_bytes("/bytes?n=5", "POST", fields=[CHUNKED]) + b"3\r\nabc\r\n")
        response = connection.response("POST")
        assert len(response.body) == 5
        with contextlib.suppress(ConnectionError):
            connection.send(b"0\r\n\r\n" + request_bytes("/bytes?n=1"))
        assert connection.ended()
    assert [arrival.target for arrival in origin.arrivals if arrival.target.startswith("/bytes")] == ["/bytes?n=5"]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_clients_that_read_small_responses_slowly_hold_no_server(setup: Setup, framing: str) -> None:
    """Small is what the buffer holds; the kernel's own may take some megabytes of these 8."""
    size = 8 * MIB
    balancer, _ = setup.start(PROXY, f"[proxy.buffers]\nresponse = {2 * size}\n")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Connection(balancer.address, receive_buffer=16 * 1024)) for _ in range(3)]
        for connection in slow:
            connection.send(request_bytes(f"/bytes?n={size}&framing={framing}", close=True))
            wait_until(lambda: connection.has_input() and claims(balancer) == 0, "its server is given back")  # noqa: B023
        assert fetch(balancer.address).status == 200
        for connection in slow:
            response = connection.response()
            assert len(response.body) == size and fits_pattern(0, response.body)


def test_a_client_that_reads_a_large_response_slowly_costs_no_more_than_the_buffer(setup: Setup) -> None:
    size = 64 * MIB
    balancer, _ = setup.start(PROXY, f"[proxy.buffers]\nresponse = {MIB}\n")
    with Connection(balancer.address, receive_buffer=16 * 1024) as connection, contextlib.ExitStack() as stack:
        watches = [stack.enter_context(MemoryWatch(worker)) for worker in balancer.workers()]
        connection.send(request_bytes(f"/bytes?n={size}&framing=chunked", close=True))
        response = connection.response()
        assert len(response.body) == size and fits_pattern(0, response.body)
    assert max(watch.growth for watch in watches) < 8 * MIB


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_server_that_breaks_off_while_its_client_reads_slowly_shows(setup: Setup, framing: str) -> None:
    """What came before the break arrives, and does not look whole."""
    size = 8 * MIB
    balancer, _ = setup.start(PROXY, f"# {framing}: a server with a failure\n[proxy.buffers]\nresponse = {2 * size}\n")
    with Connection(balancer.address, receive_buffer=16 * 1024) as connection:
        connection.send(request_bytes(f"/broken?n={2 * size}&sent={size}&framing={framing}", close=True))
        wait_until(lambda: connection.has_input() and claims(balancer) == 0, "the server's end was seen")
        with pytest.raises(Truncated) as caught:
            connection.response()
    assert len(caught.value.response.body) == size and fits_pattern(0, caught.value.response.body)


def test_a_client_that_leaves_while_it_is_served_from_memory_leaves_nothing_behind(setup: Setup) -> None:
    balancer, _ = setup.start(PROXY, f"[proxy.buffers]\nresponse = {MIB}\n")
    with Connection(balancer.address, receive_buffer=16 * 1024) as connection:
        connection.send(request_bytes(f"/bytes?n={64 * MIB}", close=True))
        wait_until(connection.has_input, "the response begins")
        assert claims(balancer) == 1
    balancer.wait_until_idle()
    assert "ejected" not in setup.log(balancer)
