"""A worker that runs out of descriptors: clients wait or get 503, and no server is blamed."""
from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Burst, fetch
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

DESCRIPTORS = 160
CLIENTS = 400
QUEUE = "[pools.web.queue]\nsize = 1000\ntimeout = 60\n"


@pytest.fixture(autouse=True)
def enough_for_the_test_itself() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(rig: Rig, config: str, *extra: str) -> Balancer:
    """One worker with so few descriptors."""
    balancer = rig.balancer(config, PROXY, workers=1, extra=extra)
    old = balancer.workers()
    resource.prlimit(balancer.master, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    balancer.reload()
    wait_until(lambda: not set(old) & set(balancer.workers()), "the worker that may have more ended")
    return balancer


def blames_nobody(balancer: Balancer) -> None:
    status = balancer.wait_until_idle()
    servers = status.instance["servers"]
    assert [server["failures"] for server in servers] == [0] * len(servers)
    assert all(server["usable"] for server in servers)
    log = balancer.log()
    assert "Traceback" not in log and "ejected" not in log
    # One line a second of a kind, and the test takes some seconds.
    assert sum("descriptor" in line or "Too many open files" in line for line in log.splitlines()) < 60


def held(origin: Origin) -> int:
    return sum(origin.in_flight)


@pytest.mark.parametrize("queue", ["", QUEUE], ids=["no-queue", "queue"])
def test_more_clients_than_descriptors_wait_and_are_served(rig: Rig, queue: str) -> None:
    origin = rig.origin(2)
    limit = ", max_connections = 10" if queue else ""
    servers = [f'{{ address = "{address}"{limit} }}' for address in origin.addresses]
    balancer = limited(rig, pool_text(servers, more=queue), "--worker-connections", "5000")
    with Burst(balancer.address, CLIENTS, "/sleep?seconds=0.1", timeout=60) as burst:
        statuses = burst.statuses()
    assert set(statuses) == {200} and len(statuses) == CLIENTS
    blames_nobody(balancer)


def test_idle_connections_to_servers_give_way(rig: Rig) -> None:
    """16 servers, each with connections that idle: they would take all descriptors."""
    origin = rig.origin(16)
    pools = "".join(pool_text([address], name=f"p{number}") for number, address in enumerate(origin.addresses))
    routes = "".join(f'[[routes]]\nhosts = ["p{number}.example"]\npool = "p{number}"\n' for number in range(16))
    balancer = limited(rig, pools + routes)
    for number in range(16):
        with origin.released_at_end(), Burst(balancer.address, 24, host=f"p{number}.example") as burst:
            wait_until(lambda: held(origin) == 24, lambda: f"24 are held: {origin.in_flight}")
            origin.release()
            assert set(burst.statuses()) == {200}
    blames_nobody(balancer)


def test_without_a_descriptor_the_answer_is_503(rig: Rig) -> None:
    """The limit falls while the worker runs: what it has goes on, what comes gets 503 or waits."""
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
    (worker,) = balancer.workers()
    with contextlib.ExitStack() as stack:
        stack.enter_context(origin.released_at_end())
        first = stack.enter_context(Burst(balancer.address, 30))
        origin.wait_for_in_flight(30)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (100, 100))
        more = stack.enter_context(Burst(balancer.address, 60, "/sleep?seconds=0.2", timeout=60))
        wait_until(lambda: more.answered() > 0, "some are refused")
        origin.release()
        assert first.statuses() == [200] * 30
        statuses = more.statuses()
        assert set(statuses) <= {200, 503} and 503 in statuses
        assert fetch(balancer.address, "/bytes?n=1").status == 200
    blames_nobody(balancer)
