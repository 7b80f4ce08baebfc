"""New connections: addresses of every kind, several addresses of a name, and failures that say which."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.dial import dial
from tests.support.descriptors import no_descriptor_left

DEADLINE_S = 10.0


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
