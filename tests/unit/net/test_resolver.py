"""What names resolve to: remembered, and asked for beside those who connect."""
from __future__ import annotations

import logging
import queue
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import ConnectFailed, ConnectTimeout
from prefork_lb.net import resolver as resolving
from prefork_lb.net.address import Address
from prefork_lb.net.name_lookup import Endpoint
from prefork_lb.net.resolver import Name, Resolver
from tests.support.waiting import wait_until

DEADLINE_S = 10.0
APP = Address("app.test", 80)


def at(number: int) -> Endpoint:
    return socket.AF_INET, (f"192.0.2.{number}", 80)


def look_ups() -> int:
    """How many threads look names up."""
    return sum(thread.name == "prefork_lb look-up" for thread in threading.enumerate())


class Rig:
    """A resolver on a clock that stands still, over name servers that answer when the test says so."""

    def __init__(self, most_threads: int = 8) -> None:
        self.clock = ManualClock(1000.0)
        self.asked: queue.SimpleQueue[Address] = queue.SimpleQueue()
        self._answers: dict[Address, queue.SimpleQueue[list[Endpoint] | Exception]] = {}
        self.over = threading.Event()
        self.resolver = Resolver(self._look_up, self.clock, most_threads)

    def answer(self, answer: list[Endpoint] | Exception, address: Address = APP) -> None:
        self._answers.setdefault(address, queue.SimpleQueue()).put(answer)

    def ended(self, name: Name) -> None:
        wait_until(lambda: name.asked_at is None, "the end of the look-up", DEADLINE_S)

    def known(self, *answer: Endpoint, address: Address = APP) -> Name:
        """A name that was looked up."""
        self.answer(list(answer), address)
        name = self.resolver.find(address)
        self.ended(name)
        assert self.next_asked() == address
        return name

    def next_asked(self) -> Address:
        return self.asked.get(timeout=DEADLINE_S)

    def _look_up(self, address: Address) -> list[Endpoint]:
        answers = self._answers.setdefault(address, queue.SimpleQueue())
        self.asked.put(address)
        while not self.over.is_set():
            try:
                answer = answers.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise ConnectFailed("over")


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.over.set()
    wait_until(lambda: not look_ups(), "the end of the look-ups", DEADLINE_S)


def test_a_name_is_asked_for_once_while_its_answer_is_fresh(rig: Rig) -> None:
    name = rig.known(at(1), at(2))
    for _ in range(3):
        rig.clock.advance(1.6)
        assert rig.resolver.find(APP) is name
    assert rig.resolver.so_far(name) == ([at(1), at(2)], False)
    assert rig.asked.empty()
    rig.clock.advance(0.3)
    rig.resolver.find(APP)
    assert rig.next_asked() == APP


def test_known_addresses_stay_in_use_while_the_resolver_hangs(rig: Rig) -> None:
    rig.known(at(1))
    rig.clock.advance(60)
    name = rig.resolver.find(APP)
    assert rig.resolver.so_far(name) == ([at(1)], True)
    assert rig.resolver.wait_s(name, 5.0) == pytest.approx(0.05)
    rig.clock.advance(0.05)
    rig.resolver.require(rig.resolver.find(APP), 5.0)
    assert rig.resolver.wait_s(name, 5.0) == 0
    rig.next_asked()
    assert rig.asked.empty(), "one look-up at a time"


def test_a_resolver_that_hangs_is_told_once_and_so_is_its_return(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    name = rig.known(at(1))
    rig.clock.advance(6)
    for _ in range(3):
        rig.resolver.find(APP)
        rig.clock.advance(6)
    rig.answer([at(2)])
    rig.ended(name)
    wait_until(lambda: len(caplog.messages) > 1, "both messages", DEADLINE_S)
    assert caplog.messages == [
        "app.test:80: the resolver has not answered for 6 s; the addresses that it had stay in use",
        "app.test:80: the name resolves again"]


def test_a_resolver_that_fails_leaves_the_addresses_and_is_asked_again_later(
        rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    name = rig.known(at(1))
    for _ in range(3):
        rig.clock.advance(5)
        rig.answer(ConnectFailed("app.test:80: the name does not resolve: no"))
        rig.resolver.find(APP)
        rig.next_asked()
        rig.ended(name)
        assert rig.resolver.so_far(name) == ([at(1)], False)
    wait_until(lambda: caplog.messages, "the message", DEADLINE_S)
    assert caplog.messages == ["app.test:80: the name does not resolve: no; the addresses that it had stay in use"]


def test_a_name_without_an_address_is_asked_for_by_everybody_anew(rig: Rig) -> None:
    for _ in range(2):
        rig.answer(ConnectFailed("app.test:80: the name does not resolve: no"))
        name = rig.resolver.find(APP)
        rig.next_asked()
        rig.ended(name)
        with pytest.raises(ConnectFailed, match="does not resolve"):
            rig.resolver.require(name, 5.0)


def test_a_name_that_was_never_answered_is_a_timeout(rig: Rig) -> None:
    name = rig.resolver.find(APP)
    assert rig.resolver.wait_s(name, 5.0) == 5.0
    with pytest.raises(ConnectTimeout, match="app.test:80: the resolver did not answer within 5 s"):
        rig.resolver.require(name, 5.0)


def test_who_waits_is_told_of_the_answer_and_who_gave_up_is_not(rig: Rig) -> None:
    name = rig.resolver.find(APP)
    told = threading.Event()
    given_up = threading.Event()
    rig.resolver.on_answer(name, told.set)
    rig.resolver.on_answer(name, given_up.set)
    rig.resolver.forget(name, given_up.set)
    rig.answer([at(1)])
    assert told.wait(DEADLINE_S) and not given_up.is_set()
    rig.resolver.on_answer(name, given_up.set)
    assert given_up.is_set(), "nothing to wait for"


def test_names_that_hang_take_a_few_threads_and_no_more() -> None:
    rig = Rig(most_threads=3)
    names = [Address(f"app{number}.test", 80) for number in range(50)]
    for _ in range(2):
        for address in names:
            rig.resolver.find(address)
        rig.clock.advance(60)
    assert look_ups() == 3
    for address in names:
        rig.answer([at(1)], address)
    for address in names:
        rig.ended(rig.resolver.find(address))
    wait_until(lambda: not look_ups(), "the end of the threads", DEADLINE_S)


def test_an_address_that_worked_goes_first_until_the_first_one_works_again(rig: Rig) -> None:
    name = rig.known(at(1), at(2), at(3))
    rig.resolver.note_worked(name, at(3))
    assert rig.resolver.so_far(name)[0] == [at(3), at(1), at(2)]
    rig.resolver.note_worked(name, at(1))
    assert rig.resolver.so_far(name)[0] == [at(1), at(2), at(3)]


def test_the_first_address_gets_another_chance_after_ten_minutes(rig: Rig) -> None:
    name = rig.known(at(1), at(2))
    rig.resolver.note_worked(name, at(2))
    rig.clock.advance(599)
    rig.resolver.note_worked(name, at(2))
    assert rig.resolver.so_far(name)[0] == [at(2), at(1)]
    rig.clock.advance(1)
    assert rig.resolver.so_far(name)[0] == [at(1), at(2)]


def test_a_resolver_that_turns_its_answers_round_is_let_do_so(rig: Rig) -> None:
    """DNS round robin: the first of each answer works, and none is preferred."""
    name = rig.known(at(1), at(2))
    rig.resolver.note_worked(name, at(1))
    rig.clock.advance(5)
    assert rig.resolver.so_far(rig.known(at(2), at(1)))[0] == [at(2), at(1)]


def test_without_a_thread_for_the_look_up_it_is_this_host_s_lack(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(resolving.threading, "Thread", NoThread)
    name = rig.resolver.find(APP)
    with pytest.raises(resolving.OutOfDescriptors, match="no thread"):
        rig.resolver.require(name, 5.0)


GEVENT = """
    import socket
    from prefork_lb.net.address import Address
    from prefork_lb.net.dial import SocketDialer
    dialer = SocketDialer()  # in gunicorn's master, with --preload
    from gevent import monkey
    monkey.patch_all()
    import gevent, socket
    listener = socket.create_server(("127.0.0.1", 0))
    address = Address("localhost", listener.getsockname()[1])
    with gevent.Timeout(10):
        jobs = [gevent.spawn(dialer.dial, address, 5.0) for _ in range(5)]
        gevent.joinall(jobs, raise_error=True)
    print(len(jobs))
"""


def test_a_resolver_that_was_made_before_gevent_patched_the_locks_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "5\n", done.stderr
