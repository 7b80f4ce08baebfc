"""Clients are taken as Python's own accept takes them, compiled or not."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.green import compiled
from prefork_lb.green.accepting import Listening
from tests.support.place import HOST, has_ipv6


@pytest.fixture(params=["compiled", "python"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(compiled, "loop", None)
    elif compiled.loop is None:
        pytest.skip("prefork_lb.native.loop was not built: it takes a C compiler")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as made:
        yield made


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_client_comes_with_its_address_and_does_not_block(listener: socket.socket) -> None:
    listening = Listening(listener)
    with socket.create_connection(listener.getsockname()) as client:
        taken = listening.accept()
        assert taken is not None
        descriptor, host, port = taken
        connected = socket.socket(fileno=descriptor)
        assert (host, port) == client.getsockname() == connected.getpeername()
        assert (connected.family, connected.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert not os.get_blocking(connected.fileno()) and not os.get_inheritable(connected.fileno())
        with pytest.raises(BlockingIOError):
            connected.recv(1)
        client.sendall(b"hello")
        os.set_blocking(connected.fileno(), True)
        connected.settimeout(20)
        assert connected.recv(9) == b"hello"
        connected.close()
        assert listening.accept() is None


@pytest.mark.skipif(not has_ipv6(), reason="::1 cannot be listened on")
def test_a_client_of_ipv6_comes_with_the_text_of_its_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        listening = Listening(listener)
        with socket.create_connection(listener.getsockname()[:2]) as client:
            taken = listening.accept()
            assert taken is not None
            descriptor, host, port = taken
            os.close(descriptor)
            assert (host, port) == client.getsockname()[:2] and host == "::1"


def test_a_client_of_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        taken = Listening(listener).accept()
        assert taken is not None
        descriptor, host, port = taken
        os.close(descriptor)
        assert (host, port) == ("", 0)


def test_what_accept_raises_comes_through_and_leaves_nothing_open(listener: socket.socket) -> None:
    listening = Listening(listener)
    before = open_descriptors()
    for _ in range(3):
        with socket.create_connection(listener.getsockname()):
            taken = listening.accept()
            assert taken is not None
            os.close(taken[0])
    assert open_descriptors() == before
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        listening.accept()
    with socket.socket() as never_listened, pytest.raises(OSError, match="Invalid argument"):
        Listening(never_listened).accept()
