"""Heads that are made to be remembered: what a client can have a worker keep has a bound."""
from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

import pytest

from tests.support.balancer import FRONT_ENDS, PROXY, SYNC, Balancer, FrontEnd, pool_text
from tests.support.crowd import pss_bytes
from tests.support.ports import refusing_address
from tests.support.rig import Rig

# More than any cache has places for. gunicorn's workers parse heads in Python, and sync takes a connection for each.
HEADS = {PROXY: 6_000, SYNC: 1_500}
FEWER_HEADS = 3_000
IN_A_ROW = 20
# All caches of a worker together; with one that is not bounded by bytes it is half as much again, or more.
MOST_GROWTH = 16 << 20
# There is no server, and no state of one: each request is answered by the same short page.
AT_ONCE = "[pools.web.retries]\nattempts = 1\n[pools.web.ejection]\nfailures = 0\npenalty = 0\n"
END_OF_PAGE = b"failed in the phase: connect.\n"


def hostile(number: int) -> bytes:
    """A head unlike all others, within gunicorn's limits."""
    kind = number % 4
    if kind < 2:
        host, fields = "a", f"X-{number}-{'n' * 7900}: \r\n"
    elif kind == 2:
        host, fields = "a", "".join(f"X-{number}-{field}: \r\n" for field in range(90))
    else:
        host, fields = ".".join([f"h{number}", *["h" * 60] * 3]), f"X-A: {'v' * 3000}\r\n"
    return f"GET /{number} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()


def ask_all(balancer: Balancer, numbers: Iterable[int], kind: FrontEnd) -> None:
    """Send each head twice, as what comes once is not remembered. ProxyWorker reads requests ahead, gunicorn's workers do not."""
    heads = (hostile(number) for number in numbers for _ in range(2))
    for batch in batches(heads, 1 if kind is SYNC else IN_A_ROW):
        with socket.create_connection(balancer.address, 20) as client:
            for sent in [b"".join(batch)] if kind is PROXY else batch:
                client.sendall(sent)
                left, received = sent.count(b" HTTP/1.1\r\n"), b""
                while received.count(END_OF_PAGE) < left:
                    data = client.recv(65536)
                    assert data, received[-500:]
                    received += data


def batches(heads: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for head in heads:
        batch.append(head)
        if len(batch) == size:
            yield batch
            batch = []


@pytest.mark.parametrize("kind", FRONT_ENDS, ids=str)
def test_thousands_of_hostile_heads_pin_no_memory(rig: Rig, kind: FrontEnd) -> None:
    with refusing_address() as address:
        balancer = rig.balancer(pool_text([address], more=AT_ONCE), kind, workers=1)
        ask_all(balancer, range(60), kind)
        (worker,) = balancer.workers()
        before = pss_bytes(worker)
        ask_all(balancer, range(100, 100 + HEADS.get(kind, FEWER_HEADS)), kind)
        assert balancer.workers() == [worker]
        growth = pss_bytes(worker) - before
    assert growth < MOST_GROWTH, f"{growth >> 20} MiB"
