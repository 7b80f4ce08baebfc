"""New connections: addresses of every kind, several addresses of a name, and failures that say which."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.dial import SocketDialer
from prefork_lb.net.name_lookup import Endpoint
from prefork_lb.net.resolver import Resolver
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import Unneeded
from prefork_lb.net.tls import ClientTLS, upstream_context
from tests.support.certificates import make_pair, needs_openssl
from tests.support.descriptors import no_descriptor_left
from tests.support.ports import silent_address

DEADLINE_S = 10.0


def dial(address: Address, timeout_s: float) -> SocketStream:
    return SocketDialer().dial(address, timeout_s)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def talks(listener: socket.socket, address: Address) -> bool:
    stream = dial(address, DEADLINE_S)
    listener.settimeout(DEADLINE_S)
    accepted, _ = listener.accept()
    with accepted:
        stream.send(b"x", DEADLINE_S)
        accepted.settimeout(DEADLINE_S)
        seen = accepted.recv(9)
    stream.close()
    return seen == b"x"


def test_an_ip_address(listener: socket.socket) -> None:
    assert talks(listener, Address("127.0.0.1", port_of(listener)))


def test_an_ipv6_address() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as exc:
        pytest.skip(f"no IPv6 on this host: {exc}")
    with listener:
        assert talks(listener, Address("::1", port_of(listener)))


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert talks(listener, Address(path=path))


def test_a_name(listener: socket.socket) -> None:
    assert talks(listener, Address("localhost", port_of(listener)))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> list[str]:
    """Let every name resolve to these addresses; returns the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_all_addresses_of_a_name_are_tried_in_order(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")  # the listener is bound to the last one only
    assert talks(listener, Address("app.test", port_of(listener)))
    assert asked == ["app.test"]


def test_when_none_of_a_names_addresses_answers_the_last_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.3")
    port = free_port()
    with pytest.raises(ConnectFailed, match=f"app.test:{port}: Connection refused"):
        dial(Address("app.test", port), DEADLINE_S)


def test_an_ip_address_is_not_looked_up(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.2")
    assert talks(listener, Address("127.0.0.1", port_of(listener)))
    assert asked == []


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectFailed, match="app.test:80: the name does not resolve: Name or service not known"):
        dial(Address("app.test", 80), DEADLINE_S)


def test_a_refused_connection() -> None:
    port = free_port()
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: Connection refused"):
        dial(Address("127.0.0.1", port), DEADLINE_S)


def test_no_descriptor_for_a_connection_is_not_the_server_s_failure(listener: socket.socket) -> None:
    with no_descriptor_left(), pytest.raises(OutOfDescriptors, match="Too many open files"):
        dial(Address("127.0.0.1", port_of(listener)), DEADLINE_S)


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match="No such file or directory"):
        dial(Address(path=str(tmp_path / "none.sock")), DEADLINE_S)


def fill(address: tuple[str, int] | str, family: int) -> list[socket.socket]:
    """Take all places of a listener's queue, so that one more connection has to wait."""
    filled = []
    while True:
        sock = socket.socket(family)
        filled.append(sock)
        sock.settimeout(0.2)
        try:
            sock.connect(address)
        except (TimeoutError, BlockingIOError):
            return filled


def test_a_server_that_does_not_accept_is_timed_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = fill(listener.getsockname(), socket.AF_INET)
        started = time.monotonic()
        with pytest.raises(ConnectTimeout, match="within 0.3 s"):
            dial(Address("127.0.0.1", port_of(listener)), 0.3)
        assert time.monotonic() - started >= 0.25
        for sock in waiting:
            sock.close()


def test_a_unix_server_with_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = fill(path, socket.AF_UNIX)
        accepted: list[socket.socket] = []

        def accept_later() -> None:
            threading.Event().wait(0.2)
            accepted.append(listener.accept()[0])

        thread = threading.Thread(target=accept_later, daemon=True)
        thread.start()
        try:
            dial(Address(path=path), DEADLINE_S).close()
        finally:
            thread.join(DEADLINE_S)
            for sock in (*waiting, *accepted):
                sock.close()


def silent_then(port: int, *hosts: str) -> list[Endpoint]:
    """Endpoints with one port: of each host, in order."""
    return [(socket.AF_INET, (host, port)) for host in hosts]


def test_an_address_that_drops_packets_does_not_keep_the_others_from_being_tried() -> None:
    """The first address is silent, the second one listens at the same port: connected in a moment, then at once."""
    with silent_address() as silent:
        port = int(silent.rpartition(":")[2])
        with socket.create_server(("127.0.0.2", port)) as listener:
            dialer = SocketDialer(Resolver(lambda _: silent_then(port, "127.0.0.1", "127.0.0.2")))
            for _ in range(2):
                dialer.dial(Address("app.test", port), DEADLINE_S).close()
                listener.accept()[0].close()
            # The one that worked goes first: time for the other alone would not do.
            dialer.dial(Address("app.test", port), 0.1).close()


def test_a_connection_that_is_not_needed_any_more_is_given_up(listener: socket.socket) -> None:
    """It is needed unless another stream has something to receive, whatever the dial waits for."""
    tls = ClientTLS(upstream_context(verify=False), "one.example")
    with silent_address() as silent:
        host, _, port = silent.rpartition(":")
        for address, secured in ((Address(host, int(port)), None), (Address("127.0.0.1", port_of(listener)), tls)):
            mine, peer = socket.socketpair()
            other = SocketStream(mine)
            timer = threading.Timer(0.05, lambda peer=peer: peer.send(b"x"))
            timer.start()
            for _ in range(2):  # the second time it is there from the beginning
                with pytest.raises(Unneeded):
                    SocketDialer().dial(address, 2 * DEADLINE_S, secured, b"", other)
            timer.join()
            assert other.receive(9, DEADLINE_S) == b"x"
            other.close()
            peer.close()


@needs_openssl
def test_tls_that_one_address_does_not_speak_is_spoken_with_the_next(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "one", "one.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.create_server(("127.0.0.1", 0)) as speaks:
        def serve() -> None:
            connected = context.wrap_socket(speaks.accept()[0], server_side=True)
            connected.sendall(b"hello")
            connected.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoints: list[Endpoint] = [(socket.AF_INET, ("127.0.0.1", port_of(each))) for each in (mute, speaks)]
        tls = ClientTLS(upstream_context(ca_file=str(pair.certificate)), "one.example")
        stream = SocketDialer(Resolver(lambda _: endpoints)).dial(Address("app.test", 80, tls=True), DEADLINE_S, tls)
        assert stream.receive(99, DEADLINE_S) == b"hello"
        stream.close()
        thread.join(DEADLINE_S)


@needs_openssl
def test_a_handshake_that_is_not_answered_is_told_from_a_connection_that_is_not_made(listener: socket.socket) -> None:
    tls = ClientTLS(upstream_context(verify=False), "one.example")
    with pytest.raises(ConnectTimeout, match=r"no TLS handshake within 0\.1 s"):
        SocketDialer().dial(Address("127.0.0.1", port_of(listener), tls=True), 0.1, tls)


def test_what_lost_the_race_is_closed() -> None:
    with silent_address() as silent:
        port = int(silent.rpartition(":")[2])
        with socket.create_server(("127.0.0.2", port)):
            dialer = SocketDialer(Resolver(lambda _: silent_then(port, "127.0.0.1", "127.0.0.2")))
            before = set(os.listdir("/proc/self/fd"))
            stream = dialer.dial(Address("app.test", port), DEADLINE_S)
            assert len(set(os.listdir("/proc/self/fd")) - before) == 1
            stream.close()


def test_a_name_whose_resolver_hangs_is_connected_to_by_what_is_known(listener: socket.socket) -> None:
    release = threading.Event()
    answers = [[(socket.AF_INET, ("127.0.0.1", port_of(listener)))]]

    def look_up(_: Address) -> list[Endpoint]:
        if not answers:
            release.wait(DEADLINE_S)
            return []
        return answers.pop()

    clock = ManualClock(100.0)
    dialer = SocketDialer(Resolver(look_up, clock))
    try:
        for _ in range(3):
            dialer.dial(Address("app.test", 80), 1.0).close()
            clock.advance(60)
    finally:
        release.set()


def test_a_resolver_that_hangs_costs_the_connect_timeout_and_not_more() -> None:
    release = threading.Event()

    def look_up(_: Address) -> list[Endpoint]:
        release.wait(DEADLINE_S)
        return []

    dialer = SocketDialer(Resolver(look_up))
    started = time.monotonic()
    with pytest.raises(ConnectTimeout, match=r"app\.test:80: the resolver did not answer within 0\.2 s"):
        dialer.dial(Address("app.test", 80), 0.2)
    assert time.monotonic() - started < DEADLINE_S / 2
    release.set()


def test_a_name_that_moved_is_found_at_its_new_address_though_the_old_one_refuses(listener: socket.socket) -> None:
    """The answer is old: a look-up runs beside, and what it gives is tried in the same dial."""
    moved = threading.Event()
    answers = [("127.0.0.2", None), ("127.0.0.1", moved)]

    def look_up(_: Address) -> list[Endpoint]:
        host, waits = answers.pop(0)
        if waits:
            waits.wait(DEADLINE_S)
        return [(socket.AF_INET, (host, port_of(listener)))]

    clock = ManualClock(100.0)
    dialer = SocketDialer(Resolver(look_up, clock))
    with pytest.raises(ConnectFailed):
        dialer.dial(Address("app.test", 80), DEADLINE_S)
    clock.advance(60)
    timer = threading.Timer(0.3, moved.set)
    timer.start()
    dialer.dial(Address("app.test", 80), DEADLINE_S).close()
    timer.join()


def test_the_time_is_for_all_addresses_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = fill(listener.getsockname(), socket.AF_INET)
        resolve_to(monkeypatch, *["127.0.0.1"] * 50)
        started = time.monotonic()
        with pytest.raises(ConnectTimeout):
            dial(Address("app.test", port_of(listener)), 0.3)
        assert time.monotonic() - started < DEADLINE_S  # 50 * 0.3 s when each had its own
        for sock in waiting:
            sock.close()


def test_small_writes_go_out_at_once(listener: socket.socket) -> None:
    stream = dial(Address("127.0.0.1", port_of(listener)), DEADLINE_S)
    assert stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # what no other side can see
    stream.close()
