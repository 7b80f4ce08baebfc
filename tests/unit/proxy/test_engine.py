"""The engine against scripted servers on loopback ports: the retry rule, and what a failure leaves behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from prefork_lb.errors import (
    BadRequest,
    BadResponse,
    ConnectFailed,
    LoopDetected,
    MethodNotAllowed,
    NotImplementedByProxy,
    NoUsableServer,
    ResponseTimeout,
    StaleConnection,
    TruncatedBody,
)
from prefork_lb.net.address import Address
from prefork_lb.proxy.attempt import Timeouts
from prefork_lb.upstream.retries import RetryRules
from tests.support.waiting import wait_until
from tests.unit.proxy.loopback import DEADLINE_S, Client, Connection, ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request

IDEMPOTENT = [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"]
OTHERS = [b"POST", b"PATCH", b"BREW"]
IMPATIENT = Timeouts(connect=DEADLINE_S, response=0.3, idle=0.3)
LENGTH_2 = [(b"Content-Length", b"2")]


def answer(text: bytes) -> Callable[[Connection], None]:
    """Answer every request (without a body) with `text`."""

    def script(connection: Connection) -> None:
        while True:
            head = connection.head()
            body = b"" if head.startswith(b"HEAD ") else text
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), body))

    return script


def once(response: bytes) -> Callable[[Connection], None]:
    """Answer one request with these bytes, then hang up."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(response)

    return script


def answer_once(text: bytes) -> Callable[[Connection], None]:
    """Answer one request as if there could be more, take the next, and hang up on it."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        connection.head()

    return script


def refusing() -> Address:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", sock.getsockname()[1])


def test_a_request_is_answered_and_the_connection_kept() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        assert [rig.fetch() for _ in range(3)] == [(200, b"hi")] * 3
        assert (server.accepted, len(server.requests)) == (1, 3)
        assert rig.in_flight == [0] and rig.idle == [1]


def test_a_server_that_refuses_is_passed_over_for_every_method() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(refusing(), server.address) as rig:
        for method in (b"GET", b"POST", b"BREW"):
            assert rig.fetch(method) == (200, b"hi")
        assert rig.in_flight == [0, 0]


def test_a_body_that_fits_into_one_piece_goes_to_the_next_server() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + connection.body(2))

    with ScriptedServer(script) as server, Rig(refusing(), server.address) as rig:
        assert rig.fetch(b"POST", Source(b"hi"), LENGTH_2) == (200, b"hi")


def test_attempts_have_a_bound() -> None:
    with ScriptedServer(answer(b"hi")) as server:
        with Rig(refusing(), refusing(), server.address, attempts=2) as rig:
            with pytest.raises(ConnectFailed):
                rig.fetch()
            assert rig.in_flight == [0, 0, 0]
        with Rig(refusing(), refusing(), server.address, attempts=3) as rig:
            assert rig.fetch() == (200, b"hi")
        with Rig(refusing(), server.address, attempts=1) as rig, pytest.raises(ConnectFailed):
            rig.fetch()


def test_what_the_last_server_did_says_more_than_that_no_other_is_left() -> None:
    with Rig(refusing(), attempts=5) as rig:
        with pytest.raises(ConnectFailed, match="Connection refused"):
            rig.fetch()
        assert rig.in_flight == [0]


def test_with_no_server_at_all_that_is_said() -> None:
    with Rig() as rig, pytest.raises(NoUsableServer):
        rig.fetch()


@pytest.mark.parametrize("method", IDEMPOTENT)
def test_a_stale_connection_is_replaced_once_for_idempotent_methods(method: bytes) -> None:
    with ScriptedServer(answer_once(b""), answer(b"")) as server, Rig(server.address) as rig:
        assert rig.fetch() == (200, b"")
        assert rig.idle == [1]
        assert rig.fetch(method) == (200, b"")
        assert [head.split()[0] for head in server.requests] == [b"GET", method, method]
        assert rig.in_flight == [0]


@pytest.mark.parametrize("method", OTHERS)
def test_a_stale_connection_is_not_replaced_for_other_methods(method: bytes) -> None:
    with ScriptedServer(answer_once(b""), answer(b"")) as server, Rig(server.address) as rig:
        assert rig.fetch() == (200, b"")
        with pytest.raises(StaleConnection):
            rig.fetch(method)
        assert [head.split()[0] for head in server.requests] == [b"GET", method]
        assert rig.in_flight == [0] and rig.idle == [0]


def test_the_repeat_takes_no_other_kept_connection() -> None:
    both_taken = threading.Barrier(2, timeout=DEADLINE_S)

    def together(connection: Connection) -> None:
        connection.head()
        both_taken.wait()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.head()

    with ScriptedServer(together, together, answer(b"new")) as server, Rig(server.address) as rig:
        threads = [threading.Thread(target=rig.fetch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert rig.idle == [2]
        assert rig.fetch() == (200, b"new")
        assert server.accepted == 3


def test_a_kept_connection_that_the_server_closed_is_not_used() -> None:
    def one_answer(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with ScriptedServer(one_answer) as server, Rig(server.address) as rig:
        for _ in range(2):
            assert rig.fetch(b"POST") == (200, b"hi")
            # Kept, and then ended by the server: seen before the next use, so even POST is safe.
            wait_until(lambda: not rig.servers[0].idle or not _peek_quiet(rig), "the server's end of the connection")
        assert server.accepted == 2


def _peek_quiet(rig: Rig) -> bool:
    stream = rig.servers[0].idle.take()
    if stream is None:
        return False
    rig.servers[0].idle.put(stream)
    return True


def test_a_body_of_several_pieces_is_sent_again_from_what_is_kept() -> None:
    with ScriptedServer(answer_once(b""), answer(b"")) as server, Rig(server.address) as rig:
        assert rig.fetch() == (200, b"")
        assert rig.fetch(b"PUT", Source(b"a", b"b"), LENGTH_2) == (200, b"")
        assert [head.split()[0] for head in server.requests] == [b"GET", b"PUT", b"PUT"]
        assert rig.in_flight == [0]


def test_a_body_longer_than_what_is_kept_is_not_sent_again() -> None:
    rules = RetryRules(body_limit=1)
    with ScriptedServer(answer_once(b""), answer(b"")) as server, Rig(server.address, rules=rules) as rig:
        assert rig.fetch() == (200, b"")
        with pytest.raises((StaleConnection, BadResponse)):
            rig.fetch(b"PUT", Source(b"a", b"bc"), [(b"Content-Length", b"3")])
        assert [head.split()[0] for head in server.requests] == [b"GET", b"PUT"]
        assert rig.in_flight == [0]


def hang_up(connection: Connection) -> None:
    connection.head()


def test_a_new_connection_that_dies_is_repeated_at_another_server() -> None:
    with ScriptedServer(hang_up) as bad, ScriptedServer(answer(b"hi")) as good, Rig(bad.address, good.address) as rig:
        assert rig.fetch() == (200, b"hi")
        assert (bad.accepted, good.accepted) == (1, 1)
        assert rig.in_flight == [0, 0]


@pytest.mark.parametrize("rules", [RetryRules(attempts=1), RetryRules(conditions=frozenset(("connect", "timeout")))],
                         ids=["one attempt", "not for a reset"])
def test_a_new_connection_that_dies_is_not_repeated_unless_it_should(rules: RetryRules) -> None:
    with ScriptedServer(hang_up) as bad, ScriptedServer(answer(b"hi")) as good, \
            Rig(bad.address, good.address, rules=rules) as rig:
        with pytest.raises(BadResponse, match="connection closed before the response"):
            rig.fetch()
        assert (bad.accepted, good.accepted) == (1, 0)
        assert rig.in_flight == [0, 0]


def test_a_post_that_a_server_may_have_seen_is_not_repeated_without_a_key() -> None:
    with ScriptedServer(hang_up) as bad, ScriptedServer(answer(b"hi")) as good, Rig(bad.address, good.address) as rig:
        with pytest.raises(BadResponse):
            rig.fetch(b"POST", Source(b"ab"), LENGTH_2)
        assert (bad.accepted, good.accepted) == (1, 0)


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 O",
    ],
)
def test_a_bad_response_is_refused_and_its_connection_closed(response: bytes) -> None:
    with ScriptedServer(once(response)) as server, Rig(server.address) as rig:
        with pytest.raises(BadResponse):
            rig.fetch()
        assert rig.in_flight == [0] and rig.idle == [0] and server.accepted == 1


def test_a_body_malformed_right_behind_its_head_is_refused_before_the_client_sees_anything() -> None:
    with (
        ScriptedServer(once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")) as server,
        Rig(server.address) as rig,
    ):
        with pytest.raises(TruncatedBody):
            rig.exchange(request())
        assert rig.in_flight == [0] and rig.idle == [0]


def test_a_silent_server_is_timed_out_and_not_asked_again() -> None:
    def silent(connection: Connection) -> None:
        connection.head()
        connection.wait_for_end()

    with ScriptedServer(silent) as server, Rig(server.address, refusing(), timeouts=IMPATIENT) as rig:
        with pytest.raises(ResponseTimeout, match=r"within 0\.3 s"):
            rig.fetch()
        assert server.accepted == 1 and rig.in_flight == [0, 0]


def test_interim_responses_reach_the_client_before_the_final_one() -> None:
    response = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    client = Client()
    with ScriptedServer(once(response)) as server, Rig(server.address) as rig:
        reply = rig.exchange(request(client=client))
        assert reply.status == 200
        assert [head.status for head in client.relayed] == [103]
        reply.close()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (request(b"TRACE"), MethodNotAllowed),
        (request(b"CONNECT", target=b"a.test:80"), NotImplementedByProxy),
        (request(fields=[(b"Via", b"1.1 lb, " * 8)]), LoopDetected),
        (request(fields=[(b"Host", b"b.test")]), BadRequest),
        (request(fields=[(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")]), BadRequest),
        (request(target=b"/\n"), BadRequest),
    ],
)
def test_what_is_refused_reaches_no_server(asked: object, error: type[Exception]) -> None:
    with ScriptedServer(answer(b"")) as server, Rig(server.address) as rig:
        with pytest.raises(error):
            rig.exchange(asked)  # type: ignore[arg-type]
        assert server.accepted == 0 and rig.in_flight == [0]


def test_the_lease_is_held_until_the_reply_is_closed() -> None:
    def slow(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhi")
        connection.wait_for_end()
        ended.set()

    ended = threading.Event()
    with ScriptedServer(slow) as server, Rig(server.address) as rig:
        reply = rig.exchange(request())
        assert rig.in_flight == [1]
        assert reply.read() == b"hi"
        assert rig.in_flight == [1]
        reply.close()
        assert rig.in_flight == [0]
        assert ended.wait(DEADLINE_S)  # a client that left: the server's connection is ended at once
