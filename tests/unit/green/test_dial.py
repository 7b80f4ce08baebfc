"""Connecting from greenlets: outcomes, names, and a resolver that blocks nobody else."""
from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.green import dial as dialing
from prefork_lb.green.dial import Dialer
from prefork_lb.green.hub import Hub
from prefork_lb.net.address import Address
from prefork_lb.net.names import Endpoint
from tests.support.descriptors import no_descriptor_left
from tests.support.ports import refusing_address, silent_address
from tests.unit.green.running import DEADLINE_S, run


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(DEADLINE_S)
        yield made


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def local(port: int) -> Endpoint:
    return socket.AF_INET, ("127.0.0.1", port)


def test_the_preamble_goes_before_everything_else(hub: Hub, listener: socket.socket) -> None:
    def use() -> None:
        stream = Dialer(hub).dial(Address("127.0.0.1", port_of(listener)), DEADLINE_S, None, b"first ")
        stream.send(b"then", DEADLINE_S)
        stream.close()

    run(hub, use)
    run(hub, lambda: hub.sleep(0.001))
    with listener.accept()[0] as connected:
        assert b"".join(iter(lambda: connected.recv(99), b"")) == b"first then"


def test_a_unix_socket(hub: Hub, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        run(hub, lambda: Dialer(hub).dial(Address(path=path), DEADLINE_S).send(b"x", DEADLINE_S))
        assert listener.accept()[0].recv(9) == b"x"


def test_a_unix_socket_whose_queue_is_full_is_waited_for(hub: Hub, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(ConnectTimeout):
            run(hub, lambda: Dialer(hub).dial(Address(path=path), 0.05))
        hub.call_at(hub.now + 0.03, lambda: listener.accept())
        run(hub, lambda: Dialer(hub).dial(Address(path=path), DEADLINE_S).close())


def test_a_refusal_and_a_silence(hub: Hub) -> None:
    with refusing_address() as refusing, silent_address() as silent:
        with pytest.raises(ConnectFailed, match="Connection refused"):
            run(hub, lambda: Dialer(hub).dial(Address("127.0.0.1", int(refusing.rpartition(":")[2])), DEADLINE_S))
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.05 s"):
            run(hub, lambda: Dialer(hub).dial(Address("127.0.0.1", int(silent.rpartition(":")[2])), 0.05))


def test_no_descriptor_for_a_connection_is_not_the_server_s_failure(hub: Hub, listener: socket.socket) -> None:
    with no_descriptor_left(), pytest.raises(OutOfDescriptors, match="Too many open files"):
        run(hub, lambda: Dialer(hub).dial(Address("127.0.0.1", port_of(listener)), DEADLINE_S))


def test_all_addresses_of_a_name_are_tried_and_remembered(
    hub: Hub, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Address] = []
    with refusing_address() as refusing:
        def look_up(address: Address) -> list[Endpoint]:
            asked.append(address)
            return [local(int(refusing.rpartition(":")[2])), local(port_of(listener))]

        monkeypatch.setattr(dialing, "look_up", look_up)
        dialer = Dialer(hub)
        for _ in range(3):
            run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S).close())
    assert len(asked) == 1


def test_a_resolver_that_hangs_holds_nobody_else_up(hub: Hub, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def look_up(address: Address) -> list[Endpoint]:
        release.wait(DEADLINE_S)
        return [local(port_of(listener))]

    monkeypatch.setattr(dialing, "look_up", look_up)
    ticks: list[int] = []
    hub.every(0.01, lambda: ticks.append(1))
    with pytest.raises(ConnectTimeout, match="resolver did not answer"):
        run(hub, lambda: Dialer(hub).dial(Address("app.test", 80), 0.1))
    release.set()
    assert len(ticks) >= 5


def test_a_name_that_does_not_resolve(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectFailed, match=r"app\.test:80: the name does not resolve: Name or service not known"):
        run(hub, lambda: Dialer(hub).dial(Address("app.test", 80), DEADLINE_S))
