"""One ProxyWorker beside peers that send without pause: the others are served all the same, and its timers run."""
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection
from tests.support.flood import KINDS, flood_server, flooding
from tests.support.rig import Rig
from tests.support.waiting import wait_until

# Without its share of the loop another client waits for the flood's end, which never comes.
PATIENCE_S = 20.0
REQUESTS = 20


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    folder: Path = tmp_path_factory.mktemp("floods")
    with flood_server() as port, Rig(folder) as rig:
        yield rig.balancer(pool_text([f"127.0.0.1:{port}"]), PROXY, workers=1)


def flows(balancer: Balancer, clients: int) -> bool:
    return sum(balancer.status().in_flight.values()) == clients


@pytest.mark.parametrize("kind", KINDS)
def test_another_client_is_served_beside_a_flood(balancer: Balancer, kind: str) -> None:
    """An old connection, with requests one after the other, and new ones."""
    with Connection(balancer.address, timeout=PATIENCE_S) as kept:
        assert kept.request("/").status == 200
        with flooding(balancer.address, kind, kind):
            wait_until(lambda: flows(balancer, 2), "both floods have come to the server")
            begin = time.monotonic()
            for _ in range(REQUESTS):
                assert kept.request("/").body == b"hello"
            with Connection(balancer.address, timeout=PATIENCE_S) as new:
                assert new.request("/").body == b"hello"
            assert time.monotonic() - begin < PATIENCE_S
    wait_until(lambda: flows(balancer, 0), "the claims of the floods are given back")
