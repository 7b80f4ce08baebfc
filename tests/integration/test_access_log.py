"""The access log: what clients send cannot write lines of its own, command a terminal, or come out garbled."""
from __future__ import annotations

import base64

from tests.support.balancer import FrontEnd, pool_text
from tests.support.client import Connection
from tests.support.rig import Rig
from tests.support.waiting import wait_until


def test_a_line_of_the_access_log_is_one_line_that_can_be_read(rig: Rig, front_end: FrontEnd) -> None:
    more = ["--access-logfile", "access.log", "--access-logformat", '%(s)s "%(a)s" "%(f)s" %(u)s %(U)s %({x-a}i)s']
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), front_end, workers=1, extra=more)
    user = base64.b64encode("josé\n200 forged".encode() + b":secret")
    with Connection(balancer.address) as connection:
        connection.send(b"GET /%1B[2J HTTP/1.1\r\nHost: a\r\nUser-Agent: " + "Größe ☃".encode() + b"\r\n"
                        b"Referer: a\x9b31m\x85b\"c\\\r\nAuthorization: Basic " + user + b"\r\nX-A: x\ty\r\n"
                        b"Connection: close\r\n\r\n")
        assert connection.response().status
    log = balancer.folder / "access.log"
    lines = wait_until(lambda: [line for line in log.read_bytes().split(b"\n") if b"jos" in line], "the line of the request", 5)
    shown_path = r"/%1B[2J" if front_end.worker_class.startswith("prefork_lb") else r"/\x1b[2J"  # gunicorn logs it decoded
    assert [line.decode().partition(" ")[2] for line in lines] == [
        rf'"Größe ☃" "a\x9b31m\x85b\"c\\" josé\x0a200 forged {shown_path} x\x09y']
