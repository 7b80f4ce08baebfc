"""Policies by key: one server a key over all workers, and through reloads and killed workers."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, fetch
from tests.support.origin import Origin
from tests.support.rig import Rig

SERVERS = 4
USERS = [f"user-{number}" for number in range(40)]


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


def configuration(addresses: list[str]) -> str:
    pools = {
        "header": ("hash", 'key = "header:X-User"'),
        "cookie": ("hash", 'key = "cookie:user"'),
        "query": ("consistent-hash", 'key = "query:user"\nload_factor = 0'),
        "bounded": ("consistent-hash", 'key = "query:user"\nload_factor = 1.25'),
        "source": ("hash", 'key = "source"'),
    }
    text = '[proxy]\ntrusted_proxies = ["127.0.0.0/8"]\n'
    text += "".join(pool_text(addresses, policy, name, more) for name, (policy, more) in pools.items())
    return text + "".join(f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n\n' for name in pools)


@pytest.fixture(scope="module", params=[GTHREAD, PROXY], ids=str)
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    front_end: FrontEnd = request.param
    with Rig(tmp_path_factory.mktemp("keys")) as rig:
        origin = rig.origin(SERVERS)
        yield Setup(rig.balancer(configuration(origin.addresses), front_end, workers=front_end.workers), origin)


def homes(setup: Setup, kind: str = "header") -> list[int]:
    """The server that each user gets, each by a connection of its own, so by whichever worker takes it."""
    start = len(setup.origin.arrivals)
    for user in USERS:
        field = {"cookie": ("Cookie", f"a=b; user={user}"), "source": ("X-Forwarded-For", f"192.0.2.{user[5:]}")}
        target = f"/?user={user}" if kind == "query" else "/"
        fields = [("Host", f"{kind}.example"), field.get(kind, ("X-User", user))]
        assert fetch(setup.balancer.address, target, fields=fields).status == 200
    return setup.origin.order(start)


@pytest.mark.parametrize("kind", ["header", "cookie", "query", "source"])
def test_a_key_has_one_server_whichever_worker_asks(setup: Setup, kind: str) -> None:
    first = homes(setup, kind)
    assert set(first) == set(range(SERVERS))
    for _ in range(3):
        assert homes(setup, kind) == first


def test_a_request_without_a_key_takes_its_turn(setup: Setup) -> None:
    setup.balancer.wait_until_idle()
    start = len(setup.origin.arrivals)
    for _ in range(2 * SERVERS):
        assert fetch(setup.balancer.address, fields=[("Host", "cookie.example"), ("Cookie", "other=1")]).status == 200
    assert setup.origin.shares(start) == [2] * SERVERS


def test_a_hot_key_gives_no_server_more_than_its_bound(setup: Setup) -> None:
    """16 requests at once with one key: 1.25 times a fourth of them is 5."""
    origin = setup.origin
    setup.balancer.wait_until_idle()
    with origin.released_at_end(), Burst(setup.balancer.address, 16, "/hold?user=hot", "bounded.example") as burst:
        assert sorted(origin.wait_for_in_flight(16))[-1] == 5
        origin.release()
        assert burst.statuses() == [200] * 16
    setup.balancer.wait_until_idle()


def test_keys_stay_when_a_worker_is_killed(setup: Setup) -> None:
    before = homes(setup)
    balancer = setup.balancer
    victim = balancer.workers()[0]
    balancer.kill_worker(victim)
    balancer.wait_for_workers(balancer.front_end.workers, without=[victim])
    assert homes(setup) == before


def test_keys_stay_in_another_order_and_only_those_of_a_server_that_goes_move(setup: Setup) -> None:
    before = homes(setup)
    addresses = setup.origin.addresses
    setup.balancer.config_file.write_text(configuration(addresses[::-1]))
    setup.balancer.reload()
    assert homes(setup) == before
    setup.balancer.config_file.write_text(configuration(addresses[:2] + addresses[3:]))
    setup.balancer.reload()
    setup.balancer.wait_for_workers(setup.balancer.front_end.workers)
    after = homes(setup)
    assert all(was == 2 and now != 2 or now == was for was, now in zip(before, after, strict=True)), (before, after)
    setup.balancer.config_file.write_text(configuration(addresses))
    setup.balancer.reload()
    setup.balancer.wait_for_workers(setup.balancer.front_end.workers)
    assert homes(setup) == before
