"""What a retry holds of the budget, and what a failure in the middle of several attempts leaves behind."""
from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable

import pytest

from prefork_lb.errors import OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.stream import Stream
from prefork_lb.upstream.retries import RetryRules
from tests.unit.proxy.loopback import Connection, ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import LENGTH_2, answer, answer_once, once, refusing

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
RULES = RetryRules(attempts=4, statuses=frozenset({503}), backoff_s=0)


def held(rig: Rig) -> tuple[int, list[int]]:
    """Retries under way, and claims by server."""
    return rig.ledger.retries_under_way(0), rig.in_flight


def busy(connection: Connection) -> None:
    """503 to every request."""
    while True:
        connection.head()
        connection.send(BUSY)


def test_a_stale_connection_and_then_a_status_leave_no_retry_under_way() -> None:
    with ScriptedServer(answer_once(b"hi"), once(BUSY)) as one, ScriptedServer(answer(b"other")) as other, \
            Rig(one.address, other.address, rules=RULES) as rig:
        assert rig.fetch() == (200, b"hi")
        assert rig.fetch() == (200, b"other"), "the kept connection is stale, the new one says 503, the other server answers"
        assert held(rig) == (0, [0, 0])


def test_retries_under_way_are_counted_while_they_are() -> None:
    seen: list[int] = []

    def look(connection: Connection) -> None:
        connection.head()
        seen.append(rig.ledger.retries_under_way(0))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with ScriptedServer(busy) as one, ScriptedServer(look) as other, Rig(one.address, other.address, rules=RULES) as rig:
        assert rig.fetch()[0] == 200
        assert seen == [1] and held(rig) == (0, [0, 0])


def test_a_repeat_on_a_new_connection_is_no_retry() -> None:
    seen: list[int] = []

    def look(connection: Connection) -> None:
        connection.head()
        seen.append(rig.ledger.retries_under_way(0))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with ScriptedServer(answer_once(b"hi"), look) as server, Rig(server.address, rules=RULES) as rig:
        rig.fetch()
        assert rig.fetch()[0] == 200
        assert seen == [0] and held(rig) == (0, [0])


def busy_for_long(connection: Connection) -> None:
    """503, and a body that does not end."""
    connection.head()
    connection.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\nbusy")
    connection.wait_for_end()


class Broken(Exception):
    """What nobody expects."""


def fails_at(rig: Rig, number: int, error: BaseException) -> Callable[..., Stream]:
    """A dialer that raises at its call with this number, from 1."""
    dial, calls = rig.settings.dial, 0

    def failing(*arguments: object) -> Stream:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return dial(*arguments)  # type: ignore[arg-type]

    return failing


def with_dialer(rig: Rig, dial: Callable[..., Stream]) -> None:
    rig.settings = dataclasses.replace(rig.settings, dial=dial)
    rig.engine._settings = rig.settings


@pytest.mark.parametrize("first", ["refused", "busy"])
def test_an_error_in_the_third_attempt_gives_all_of_them_back(first: str) -> None:
    """An answer of an earlier attempt is kept meanwhile, with its claim."""
    with ScriptedServer(busy_for_long) as one, ScriptedServer(busy_for_long) as two, ScriptedServer(answer(b"hi")) as three, \
            Rig(refusing() if first == "refused" else one.address, two.address, three.address, rules=RULES) as rig:
        with_dialer(rig, fails_at(rig, 3, Broken()))
        with pytest.raises(Broken):
            rig.exchange(request())
        assert held(rig) == (0, [0, 0, 0])


def test_an_error_while_it_waits_for_its_turn_gives_the_retry_back() -> None:
    def interrupted(seconds: float) -> None:
        raise Broken

    rules = dataclasses.replace(RULES, backoff_s=1)
    with ScriptedServer(busy) as one, ScriptedServer(busy) as two, Rig(one.address, two.address, rules=rules) as rig:
        rig.engine._settings = dataclasses.replace(rig.settings, sleep=interrupted)
        with pytest.raises(Broken):
            rig.exchange(request())
        assert held(rig) == (0, [0, 0])


def test_out_of_sockets_for_another_attempt_the_answer_at_hand_is_the_answer() -> None:
    with ScriptedServer(busy) as one, ScriptedServer(answer(b"hi")) as two, Rig(one.address, two.address, rules=RULES) as rig:
        with_dialer(rig, fails_at(rig, 2, OutOfDescriptors(errno.errorcode[errno.EMFILE])))
        assert rig.fetch() == (503, b"busy")
        assert held(rig) == (0, [0, 0])


@pytest.mark.parametrize(("method", "status"), [(b"POST", 503), (b"PUT", 200)])
def test_a_post_that_was_answered_with_a_status_is_not_sent_again(method: bytes, status: int) -> None:
    """Also when its first attempt reached no server, and the second could be made for that reason."""
    with ScriptedServer(upload(BUSY)) as two, ScriptedServer(upload(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as three, \
            Rig(refusing(), two.address, three.address, rules=RULES) as rig:
        assert rig.fetch(method, Source(b"ab"), LENGTH_2)[0] == status
        assert three.accepted == (status == 200)
        assert held(rig) == (0, [0, 0, 0])


def upload(response: bytes) -> Callable[[Connection], None]:
    """Take two bytes of a body and answer."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.body(2)
        connection.send(response)

    return script


def test_an_address_that_refuses_is_the_last_word_of_two() -> None:
    """The budget is given back when all attempts failed."""
    addresses: list[Address] = [refusing(), refusing(), refusing()]
    with Rig(*addresses, rules=RULES) as rig:
        with pytest.raises(Exception, match="refused"):
            rig.exchange(request())
        assert held(rig) == (0, [0, 0, 0])
