"""The scripted origin of the tests: what is left of a body is not read as the next request."""
from __future__ import annotations

import pytest

from tests.support.behaviors import behave
from tests.support.client import Connection, request_bytes
from tests.support.origin import Origin


@pytest.mark.parametrize(("framing", "begin", "rest"), [
    (("Content-Length", "8"), b"abc", b"d\r\nef"),
    (("Transfer-Encoding", "chunked"), b"3\r\nabc\r\n", b"4\r\ndefg\r\n0\r\n\r\n"),
])
def test_an_answer_before_the_body_leaves_the_connection_in_step(framing: tuple[str, str], begin: bytes, rest: bytes) -> None:
    with Origin(1, behave) as origin:
        host, _, port = origin.addresses[0].rpartition(":")
        with Connection((host, int(port))) as connection:
            connection.send(request_bytes("/bytes?n=3", "POST", fields=[framing]) + begin)
            assert len(connection.response("POST").body) == 3
            connection.send(rest + request_bytes("/bytes?n=4"))
            assert len(connection.response().body) == 4
        assert [arrival.target for arrival in origin.arrivals] == ["/bytes?n=3", "/bytes?n=4"]
