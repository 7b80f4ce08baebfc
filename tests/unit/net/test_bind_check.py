"""Addresses that cannot be listened on, found out beforehand."""
from __future__ import annotations

import socket
from pathlib import Path

import pytest

from prefork_lb.net.bind_check import why_not_bound


def test_a_free_address_is_free_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert why_not_bound(f"127.0.0.1:{port}", []) == ""
    with socket.create_server(("127.0.0.1", port)):
        assert "in use" in why_not_bound(f"127.0.0.1:{port}", [])
        # gunicorn lets go of its own before.
        assert why_not_bound(f"127.0.0.1:{port}", [f"0.0.0.0:{port}"]) == ""
        assert "in use" in why_not_bound(f"127.0.0.1:{port}", [f"0.0.0.0:{port + 1}", "unix:/run/x.sock"])


@pytest.mark.parametrize(("bind", "why"), [
    ("203.0.113.7:8080", "assign"), ("no-such-host.invalid:80", "not known"), ("unix:/no/folder/x.sock", "no folder"),
    ("127.0.0.1:port", "port"), ("fd://3", ""),
])
def test_what_is_told(bind: str, why: str) -> None:
    found = why_not_bound(bind, [])
    assert why in found and bool(found) == bool(why)


def test_a_folder_for_a_socket_is_enough(tmp_path: Path) -> None:
    assert why_not_bound(f"unix:{tmp_path}/x.sock", []) == ""
    assert list(tmp_path.iterdir()) == []
