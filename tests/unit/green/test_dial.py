"""Connecting from greenlets: outcomes, names, and a resolver that blocks nobody else."""
from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.green.dial import GreenDialer
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.address import Address
from prefork_lb.net.name_lookup import Endpoint
from prefork_lb.net.resolver import Resolver
from prefork_lb.net.stream import Unneeded
from prefork_lb.net.tls import ClientTLS, upstream_context
from tests.support.certificates import make_pair, needs_openssl
from tests.support.descriptors import no_descriptor_left
from tests.support.place import HOST
from tests.support.ports import refusing_address, silent_address
from tests.support.standstill import undisturbed
from tests.unit.green.running import DEADLINE_S, pair, run


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as made:
        made.settimeout(DEADLINE_S)
        yield made


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def local(port: int) -> Endpoint:
    return socket.AF_INET, (HOST, port)


def test_the_preamble_goes_before_everything_else(hub: Hub, listener: socket.socket) -> None:
    def use() -> None:
        stream = GreenDialer(hub).dial(Address(HOST, port_of(listener)), DEADLINE_S, None, b"first ")
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
        run(hub, lambda: GreenDialer(hub).dial(Address(path=path), DEADLINE_S).send(b"x", DEADLINE_S))
        assert listener.accept()[0].recv(9) == b"x"


def test_a_unix_socket_whose_queue_is_full_is_waited_for(hub: Hub, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(ConnectTimeout):
            run(hub, lambda: GreenDialer(hub).dial(Address(path=path), 0.05))
        hub.call_at(hub.now + 0.03, lambda: listener.accept())
        run(hub, lambda: GreenDialer(hub).dial(Address(path=path), DEADLINE_S).close())


def test_a_refusal_and_a_silence(hub: Hub) -> None:
    with refusing_address() as refusing, silent_address() as silent:
        with pytest.raises(ConnectFailed, match="Connection refused"):
            run(hub, lambda: GreenDialer(hub).dial(Address(HOST, int(refusing.rpartition(":")[2])), DEADLINE_S))
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.05 s"):
            run(hub, lambda: GreenDialer(hub).dial(Address(HOST, int(silent.rpartition(":")[2])), 0.05))


def test_a_connect_has_its_time_however_late_it_begins() -> None:
    """What ran before it in the round took longer than a connect may."""
    stalled_s = 0.0

    def clock() -> float:
        return time.monotonic() + stalled_s

    hub = Hub(clock)
    with silent_address() as silent:
        def connect() -> float:
            nonlocal stalled_s
            stalled_s = 6
            began = clock()
            with pytest.raises(ConnectTimeout):
                GreenDialer(hub).dial(Address(HOST, int(silent.rpartition(":")[2])), 0.2)
            return clock() - began

        assert run(hub, connect) >= 0.2
    hub.close()


def test_no_descriptor_for_a_connection_is_not_the_server_s_failure(hub: Hub, listener: socket.socket) -> None:
    with no_descriptor_left(), pytest.raises(OutOfDescriptors, match="Too many open files"):
        run(hub, lambda: GreenDialer(hub).dial(Address(HOST, port_of(listener)), DEADLINE_S))


def port_in(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_all_addresses_of_a_name_are_tried_and_remembered(hub: Hub, listener: socket.socket) -> None:
    asked: list[Address] = []
    with refusing_address() as refusing:
        def look_up(address: Address) -> list[Endpoint]:
            asked.append(address)
            return [local(port_in(refusing)), local(port_of(listener))]

        dialer = GreenDialer(hub, Resolver(look_up))
        for _ in range(3):
            run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S).close())
    assert len(asked) == 1


def test_an_address_that_drops_packets_does_not_keep_the_others_from_being_tried(hub: Hub, listener: socket.socket) -> None:
    with silent_address() as silent:
        dialer = GreenDialer(hub, Resolver(lambda _: [local(port_in(silent)), local(port_of(listener))]))
        for _ in range(2):
            run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S).close())
        # The one that worked goes first: time for the other alone would not do.
        run(hub, lambda: dialer.dial(Address("app.test", 80), 0.1).close())


def test_what_lost_the_race_is_closed(hub: Hub, listener: socket.socket) -> None:
    with silent_address() as silent:
        dialer = GreenDialer(hub, Resolver(lambda _: [local(port_in(silent)), local(port_of(listener))]))
        before = set(os.listdir("/proc/self/fd"))
        stream = run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S))
        run(hub, lambda: hub.sleep(0.001))
        assert len(set(os.listdir("/proc/self/fd")) - before) == 1
        stream.close()


def test_an_attempt_that_fails_as_none_should_ends_the_dial_at_once(hub: Hub, listener: socket.socket) -> None:
    no_port: tuple[Any, ...] = (HOST, "no number")
    dialer = GreenDialer(hub, Resolver(lambda _: [(socket.AF_INET, no_port), (socket.AF_INET, (HOST, "none either"))]))
    with pytest.raises(TypeError):
        run(hub, lambda: dialer.dial(Address("app.test", 80), 10 * DEADLINE_S))


def test_a_race_is_not_over_while_the_event_of_a_connection_is_behind_others(listener: socket.socket) -> None:
    stalled_s = 0.0

    def stall() -> None:
        nonlocal stalled_s
        stalled_s = DEADLINE_S / 2

    hub = Hub(lambda: time.monotonic() + stalled_s)
    dialer = GreenDialer(hub, Resolver(lambda _: [local(port_of(listener)), (socket.AF_INET, ("127.0.0.2", port_of(listener)))]))
    run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S).close())  # the name is known from here on
    hub.limit_round(1)
    pairs = [socket.socketpair() for _ in range(5)]
    streams = [GreenStream(hub, mine) for mine, _ in pairs]

    def connect() -> None:
        for _, theirs in pairs:
            theirs.send(b"x")
        hub.soon(lambda: hub.soon(stall))  # behind the first attempt
        dialer.dial(Address("app.test", 80), DEADLINE_S / 4).close()

    run(hub, connect)
    for stream in streams:
        stream.close()
    hub.close()


def test_a_connection_that_is_not_needed_any_more_is_given_up(hub: Hub, listener: socket.socket) -> None:
    """It is needed unless another stream has something to receive, whatever the dial waits for."""
    with silent_address() as silent:
        endpoint = local(port_in(silent))
        of_a_name = GreenDialer(hub, Resolver(lambda _: [endpoint, (socket.AF_INET, ("127.0.0.2", port_in(silent)))]))
        tls = ClientTLS(upstream_context(verify=False), "one.example")
        for dialer, address, secured in ((GreenDialer(hub), Address(HOST, port_in(silent)), None),
                                         (of_a_name, Address("app.test", 80), None),
                                         (GreenDialer(hub), Address(HOST, port_of(listener)), tls)):
            other, peer = pair(hub)
            before = set(os.listdir("/proc/self/fd"))
            hub.call_at(hub.now + 0.05, lambda peer=peer: peer.send(b"x"))  # type: ignore[misc]
            for _ in range(2):  # the second time it is there from the beginning
                with pytest.raises(Unneeded):
                    run(hub, lambda: dialer.dial(address, 2 * DEADLINE_S, secured, b"", other))  # noqa: B023
            run(hub, lambda: hub.sleep(0.01))
            assert set(os.listdir("/proc/self/fd")) <= before
            assert run(hub, lambda: other.receive(9, DEADLINE_S)) == b"x"  # noqa: B023
            other.close()


def test_a_name_none_of_whose_addresses_answers(hub: Hub) -> None:
    with refusing_address() as refusing, silent_address() as silent:
        addresses = [local(port_in(refusing)), (socket.AF_INET, ("127.0.0.2", port_in(refusing)))]
        refuses = GreenDialer(hub, Resolver(lambda _: addresses))
        with pytest.raises(ConnectFailed, match=r"app\.test:80: Connection refused"):
            run(hub, lambda: refuses.dial(Address("app.test", 80), DEADLINE_S))
        hangs = GreenDialer(hub, Resolver(lambda _: [local(port_in(silent)), local(port_in(refusing))]))
        with pytest.raises(ConnectTimeout, match=r"app\.test:80: no connection within 0\.1 s"):
            run(hub, lambda: hangs.dial(Address("app.test", 80), 0.1))


def test_a_resolver_that_hangs_holds_nobody_else_up(hub: Hub, listener: socket.socket) -> None:
    release = threading.Event()

    def look_up(address: Address) -> list[Endpoint]:
        release.wait(DEADLINE_S)
        return [local(port_of(listener))]

    ticks: list[int] = []
    hub.every(0.01, lambda: ticks.append(1))

    def others_go_on() -> None:
        ticks.clear()
        with pytest.raises(ConnectTimeout, match=r"the resolver did not answer within 0\.5 s"):
            run(hub, lambda: GreenDialer(hub, Resolver(look_up)).dial(Address("app.test", 80), 0.5))
        assert len(ticks) >= 5, "of 50: none if the loop had waited"

    undisturbed(others_go_on, 0.3)
    release.set()


def test_a_name_whose_resolver_hangs_is_connected_to_by_what_is_known(hub: Hub, listener: socket.socket) -> None:
    release = threading.Event()
    answers = [[local(port_of(listener))]]

    def look_up(address: Address) -> list[Endpoint]:
        if not answers:
            release.wait(DEADLINE_S)
            return []
        return answers.pop()

    clock = ManualClock(100.0)
    dialer = GreenDialer(hub, Resolver(look_up, clock))
    try:
        for _ in range(3):
            run(hub, lambda: dialer.dial(Address("app.test", 80), 1.0).close())
            clock.advance(60)
    finally:
        release.set()


def test_a_name_that_moved_is_found_at_its_new_address_though_the_old_one_refuses(hub: Hub, listener: socket.socket) -> None:
    """The answer is old: a look-up runs beside, and what it gives is tried in the same dial."""
    moved = threading.Event()
    with refusing_address() as refusing:
        answers = [local(port_in(refusing)), local(port_of(listener))]

        def look_up(address: Address) -> list[Endpoint]:
            endpoint = answers.pop(0)
            if not answers:
                moved.wait(DEADLINE_S)
            return [endpoint]

        clock = ManualClock(100.0)
        dialer = GreenDialer(hub, Resolver(look_up, clock))
        with pytest.raises(ConnectFailed):
            run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S))
        clock.advance(60)
        hub.call_at(hub.now + 0.3, moved.set)
        run(hub, lambda: dialer.dial(Address("app.test", 80), DEADLINE_S).close())


@needs_openssl
def test_tls_that_one_address_does_not_speak_is_spoken_with_the_next(hub: Hub, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "one", "one.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server((HOST, 0)) as mute, socket.create_server((HOST, 0)) as speaks:
        def serve() -> None:
            connected = context.wrap_socket(speaks.accept()[0], server_side=True)
            connected.sendall(b"hello")
            connected.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        dialer = GreenDialer(hub, Resolver(lambda _: [local(port_of(mute)), local(port_of(speaks))]))
        tls = ClientTLS(upstream_context(ca_file=str(pair.certificate)), "one.example")

        def use() -> bytes:
            stream = dialer.dial(Address("app.test", 80, tls=True), DEADLINE_S, tls)
            try:
                return stream.receive(99, DEADLINE_S)
            finally:
                stream.close()

        assert run(hub, use) == b"hello"
        thread.join(DEADLINE_S)


def test_a_name_that_does_not_resolve(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectFailed, match=r"app\.test:80: the name does not resolve: Name or service not known"):
        run(hub, lambda: GreenDialer(hub).dial(Address("app.test", 80), DEADLINE_S))
