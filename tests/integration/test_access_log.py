"""The access log: what clients send cannot write lines of its own, command a terminal, or come out garbled; clients that left."""
from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text
from tests.support.client import Connection
from tests.support.rig import Rig
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def balancer(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    more = ["--access-logfile", "access.log", "--access-logformat", '%(s)s "%(a)s" "%(f)s" %(u)s %(U)s %({x-a}i)s']
    with Rig(tmp_path_factory.mktemp("access-log")) as rig:
        yield rig.balancer(pool_text(rig.origin(1).addresses), front_end, workers=1, extra=more)


def line_with(balancer: Balancer, part: bytes) -> str:
    """The only line of the access log with `part`."""
    log = balancer.folder / "access.log"
    lines = wait_until(lambda: [line for line in log.read_bytes().split(b"\n") if part in line], "the line of the request")
    (line,) = lines
    return line.decode()


def test_a_line_of_the_access_log_is_one_line_that_can_be_read(balancer: Balancer, front_end: FrontEnd) -> None:
    user = base64.b64encode("josé\n200 forged".encode() + b":secret")
    with Connection(balancer.address) as connection:
        connection.send(b"GET /%1B[2J HTTP/1.1\r\nHost: a\r\nUser-Agent: " + "Größe ☃".encode() + b"\r\n"
                        b"Referer: a\x9b31m\x85b\"c\\\r\nAuthorization: Basic " + user + b"\r\nX-A: x\ty\r\n"
                        b"Connection: close\r\n\r\n")
        assert connection.response().status
    shown_path = r"/%1B[2J" if front_end.worker_class.startswith("prefork_lb") else r"/\x1b[2J"  # gunicorn logs it decoded
    assert line_with(balancer, b"jos").partition(" ")[2] == (
        rf'"Größe ☃" "a\x9b31m\x85b\"c\\" josé\x0a200 forged {shown_path} x\x09y')


def test_a_client_that_leaves_before_its_response_has_a_line(balancer: Balancer) -> None:
    with Connection(balancer.address) as connection:
        connection.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nX-A: cut\r\nContent-Length: 10\r\n\r\nabc")
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.sock.recv(1) == b"", "no answer to a request that was cut"
    assert line_with(balancer, b" cut").split()[0] == "499"
