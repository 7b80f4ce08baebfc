"""Whose failure it is when a connection cannot be made: the server's, or that of the host that this process runs on."""
from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest

from prefork_lb.errors import CapacityError, ConnectFailed, OutOfDescriptors
from prefork_lb.net.failures import connect_error

NOWHERE = ("127.0.0.1", 9)


def error_of(number: int) -> Exception:
    return connect_error("app:80", OSError(number, os.strerror(number)), socket.AF_INET, NOWHERE)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
def test_what_this_host_has_none_left_of_is_no_failure_of_the_server(number: int) -> None:
    error = error_of(number)
    assert isinstance(error, OutOfDescriptors) and isinstance(error, CapacityError)
    assert str(error) == f"app:80: {os.strerror(number)}"


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.EACCES])
def test_what_the_network_says_is_the_server_s_failure(number: int) -> None:
    assert isinstance(error_of(number), ConnectFailed)


PORTS = """
    import pathlib, socket, sys
    from prefork_lb.net.failures import connect_error

    def told(family, where):
        kept = []
        while True:
            sock = socket.socket(family)
            kept.append(sock)
            try:
                sock.connect(where)
            except OSError as exc:
                return f"{exc.errno} {type(connect_error('x', exc, family, where)).__name__}"

    pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("60000 60004")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 5000))
    listener.listen(50)
    print(told(socket.AF_INET, ("127.0.0.1", 5000)))
    pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    print(told(socket.AF_INET6, ("::1", 5000)))
"""


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("ip") is None, reason="needs unshare and ip")
def test_no_port_left_is_ours_and_no_way_to_the_server_is_not() -> None:
    """The kernel answers EADDRNOTAVAIL to both. In a network namespace, for only there the ports are few."""
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", textwrap.dedent(PORTS)],
        capture_output=True, text=True, timeout=30, check=False)
    if "unshare" in done.stderr or "Permission denied" in done.stderr or "Read-only" in done.stderr:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    told = [f"{errno.EADDRNOTAVAIL} {kind}" for kind in ("OutOfDescriptors", "ConnectFailed")]
    assert done.stdout.splitlines() == told, done.stderr
