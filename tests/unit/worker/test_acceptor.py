"""Connections are left to a sibling that has fewer, but no client waits for that."""
from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prefork_lb.green.hub import Hub
from prefork_lb.net.descriptors import Descriptors
from prefork_lb.wire.head import HeadLimits
from prefork_lb.worker.acceptor import Acceptor
from prefork_lb.worker.fair_share import FairShare
from prefork_lb.worker.service import ClientTimeouts, Service
from tests.support.place import HOST
from tests.support.waiting import PATIENCE_S
from tests.unit.green.running import run


@dataclass
class SiblingClients:
    """Siblings whose fewest connections the test sets."""

    fewest: int | None = None
    told: list[int] = field(default_factory=list)

    def note_clients(self, count: int) -> None:
        self.told.append(count)

    def note_lag(self, seconds: float) -> None: ...

    def fewest_clients(self) -> int | None:
        return self.fewest


@dataclass
class Listener:
    sock: socket.socket


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


def service(hub: Hub, siblings: SiblingClients) -> Service:
    return Service(hub, None, lambda environ, start: [], lambda address: False, HeadLimits(), ClientTimeouts(60, 60, 60), None,
                   None, siblings)


def connected_within(hub: Hub, found: Service, count: int, seconds: float) -> bool:
    """Whether so many connections are there within the time."""
    def wait() -> bool:
        until = hub.now + seconds
        while len(found.connections) < count and hub.now < until:
            hub.sleep(0.002)
        return len(found.connections) >= count

    return run(hub, wait)


@contextlib.contextmanager
def clients(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, 5)) for _ in range(count)]


def test_all_are_taken_when_there_is_no_sibling(hub: Hub) -> None:
    siblings = SiblingClients()
    with socket.create_server((HOST, 0)) as listener, clients(listener.getsockname(), 30):
        found = service(hub, siblings)
        Acceptor(found, Listener(listener), None, siblings, 1000, False, Descriptors(int))
        assert connected_within(hub, found, 30, PATIENCE_S)
        assert siblings.told[-1] == 30


def test_a_worker_that_has_more_waits_for_its_sibling_but_not_for_ever(hub: Hub) -> None:
    siblings = SiblingClients(fewest=0)
    with socket.create_server((HOST, 0)) as listener, clients(listener.getsockname(), 20):
        found = service(hub, siblings)
        Acceptor(found, Listener(listener), None, siblings, 1000, False, Descriptors(int))
        assert connected_within(hub, found, 3, PATIENCE_S)
        begin = hub.now
        assert connected_within(hub, found, 20, PATIENCE_S), "the sibling takes none: it is stopped, perhaps"
        assert hub.now - begin > 0.01, "each was left to the sibling for a moment"


def test_a_request_that_came_with_its_client_is_answered_in_the_same_round(tmp_path: Path) -> None:
    hub = Hub()
    siblings = SiblingClients()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client, contextlib.closing(hub):
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        client.sendall(b"no request\r\n\r\n")
        acceptor = Acceptor(service(hub, siblings), Listener(listener), None, siblings, 1000, False, Descriptors(int))
        hub.call_at(hub.now, hub.stop)
        hub.run()
        client.settimeout(PATIENCE_S)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        acceptor.stop()


def test_siblings_are_looked_at_once_for_all_clients_of_a_round() -> None:
    siblings = SiblingClients(fewest=0)
    looks: list[int] = []
    siblings.fewest_clients = lambda: looks.append(1) or 0  # type: ignore[func-returns-value,method-assign]
    share = FairShare(siblings, lambda instant: None)
    assert [share.leaves_it(count, 7.0) for count in (1, 2, 3)] == [False] * 3
    assert len(looks) == 1
    assert share.leaves_it(9, 8.0)
    assert len(looks) == 2


def test_each_client_is_left_to_the_sibling_anew() -> None:
    """Clients that come now and then: after the first one, a worker with more connections took them at once."""
    instant = [100.0]
    hub = Hub(lambda: instant[0])
    siblings = SiblingClients(fewest=0)

    def rounds() -> None:
        for _ in range(5):
            hub.call_at(hub.now, hub.stop)
            hub.run()

    with socket.create_server((HOST, 0)) as listener, clients(listener.getsockname(), 4), contextlib.closing(hub):
        found = service(hub, siblings)
        acceptor = Acceptor(found, Listener(listener), None, siblings, 1000, False, Descriptors(int))
        rounds()
        assert len(found.connections) == 4
        for _ in range(3):
            instant[0] += 1
            rounds()
            with clients(listener.getsockname(), 1):
                rounds()
                assert len(found.connections) == 4, "it is left to the sibling while the clock stands still"
                listener.accept()[0].close()  # as the sibling does
        instant[0] += 1
        rounds()
        with clients(listener.getsockname(), 1):
            rounds()
            instant[0] += 0.02
            rounds()
            assert len(found.connections) == 5, "no sibling has come for it"
        acceptor.stop()


def test_no_more_are_taken_than_may_be_and_the_next_when_one_leaves(hub: Hub) -> None:
    siblings = SiblingClients()
    with socket.create_server((HOST, 0)) as listener, clients(listener.getsockname(), 6) as many:
        found = service(hub, siblings)
        Acceptor(found, Listener(listener), None, siblings, 4, False, Descriptors(int))
        assert connected_within(hub, found, 4, PATIENCE_S)
        assert not connected_within(hub, found, 5, 0.2)
        taken = {connection.source for connection in found.connections}  # type: ignore[attr-defined]
        first = next(client for client in many if client.getsockname() in taken)
        first.close()

        def replaced() -> bool:
            until = hub.now + PATIENCE_S
            while {connection.source for connection in found.connections} == taken and hub.now < until:  # type: ignore[attr-defined]
                hub.sleep(0.005)
            return len(found.connections) <= 4

        assert run(hub, replaced)


def test_after_the_end_nobody_is_taken(hub: Hub) -> None:
    siblings = SiblingClients()
    listener = socket.create_server((HOST, 0))
    address = listener.getsockname()
    found = service(hub, siblings)
    acceptor = Acceptor(found, Listener(listener), None, siblings, 100, False, Descriptors(int))
    with clients(address, 1):
        assert connected_within(hub, found, 1, PATIENCE_S)
        acceptor.stop()
        found.close_soon()
        assert siblings.told[-1] == -1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 2)
