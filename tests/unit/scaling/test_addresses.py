"""The addresses of servers that the balancer starts."""
from __future__ import annotations

import socket
from pathlib import Path

import pytest

from prefork_lb.scaling.addresses import Addresses
from tests.support.place import HOST
from tests.support.ports import free_port


@pytest.mark.parametrize(("text", "n", "address"), [
    ("127.0.0.1:9000-9099", 1, "127.0.0.1:9000"),
    ("127.0.0.1:9000-9099", 100, "127.0.0.1:9099"),
    ("127.0.0.1:9000-9099", 101, "None"),
    ("[::1]:9000-9001", 2, "[::1]:9001"),
    ("unix:/run/app-{n}.sock", 12, "unix:/run/app-12.sock"),
    ("auto", 1, "None"),
])
def test_a_number_has_its_address(text: str, n: int, address: str) -> None:
    assert str(Addresses.parse(text).of(n)) == address


@pytest.mark.parametrize("text", [
    "127.0.0.1:9000", "9000-9001", "127.0.0.1:9001-9000", "127.0.0.1:9000-70000", "unix:/run/app.sock", "unix:app-{n}.sock",
    "unix:/{n}/{n}", "", "https://127.0.0.1:9000-9001",
])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected|needs|neither|above"):
        Addresses.parse(text)


def test_an_address_at_which_another_process_listens_is_passed_over() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert str(Addresses("", HOST, port, port + 1).free(1, set())) != f"{HOST}:{port}"
        assert Addresses("", HOST, port, port).free(1, set()) is None


def test_an_address_that_was_given_to_a_server_is_passed_over() -> None:
    port = free_port()
    assert Addresses("", HOST, port, port).free(1, {f"{HOST}:{port}"}) is None


def test_any_free_port_is_one_that_a_server_can_listen_at() -> None:
    address = Addresses.parse("auto").free(1, set())
    assert address is not None
    with socket.socket() as server:
        server.bind((address.host, address.port))


def test_a_socket_file_that_none_listens_at_is_removed(tmp_path: Path) -> None:
    addresses, path = Addresses.parse(f"unix:{tmp_path}/app-{{n}}.sock"), tmp_path / "app-1.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert addresses.free(1, set()) is None
    assert str(addresses.free(1, set())) == f"unix:{path}"
    assert not path.exists()
