"""Two balancers that share through a real store, which comes and goes."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from prefork_lb.cli.running import running_segment
from prefork_lb.shared import layout as at
from prefork_lb.shared.states import Admin
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.view import InstanceView
from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Burst
from tests.support.instances import instances, set_admin
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.store import REDIS_SERVER, WHY_NOT, RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason=WHY_NOT)

PATIENCE_S = 30.0
LIMIT = 6
ROUTES = f'''
[[routes]]
hosts = ["few.example"]
pool = "web"
concurrency = {{ key = "source", limit = {LIMIT} }}

[[routes]]
pool = "web"

'''


class Setup(NamedTuple):
    store: RedisServer
    origin: Origin
    balancers: list[Balancer]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("c")
    with RedisServer(folder) as store, Rig(folder) as rig:
        origin = rig.origin(3)
        text = pool_text(origin.addresses) + ROUTES + f'[cluster]\nurl = "{store.url}"\nbalancer = "%s"\n'
        yield Setup(store, origin, [rig.balancer(text % name, PROXY, workers=1) for name in ("a", "b")])


def seen(balancer: Balancer) -> InstanceView:
    """An instance, as its shared memory has it."""
    return next(each for each in instances() if each.master == balancer.master)


def are_together(balancer: Balancer) -> bool:
    view = seen(balancer)
    return view.together and [each.name for each in view.balancers] == ["a", "b"]


def wait_until_together(*balancers: Balancer) -> None:
    for balancer in balancers:
        wait_until(lambda balancer=balancer: are_together(balancer), lambda: "both share", PATIENCE_S)  # type: ignore[misc]


def head_start(balancer: Balancer, addresses: list[str]) -> int:
    """By how much the load of others on the first server is above that on the others, for a balancer."""
    segment = running_segment(balancer.master)
    slots, loads = slots_by_key(segment), segment.cells[segment.layout.column(at.C_ELSEWHERE)]
    first, *others = (loads[slots["web", address]] for address in addresses)
    return int(first - max(others))


def drained(balancer: Balancer) -> int:
    return [server.state for server in seen(balancer).servers].count("drain")


def test_what_one_balancer_knows_counts_on_the_other(setup: Setup) -> None:
    """One balancer has six long requests on one server, since the others were drained. Alone, the other balancer would give each
    server as many of its own: a difference of six."""
    origin, (a, b) = setup.origin, setup.balancers
    wait_until_together(a, b)
    set_admin(a.master, "web", Admin.DRAIN, *origin.addresses[1:])
    wait_until(lambda: drained(b) == 2, "what was set on one balancer holds on the other", PATIENCE_S)
    with origin.released_at_end(), Burst(a.address, 6):
        origin.wait_for_in_flight(6)
        set_admin(b.master, "web", Admin.READY, *origin.addresses[1:])
        wait_until(lambda: drained(a) == 0, "and the other way round", PATIENCE_S)
        wait_until(lambda: head_start(b, origin.addresses) >= 3, "the other balancer knows of the six", PATIENCE_S)
        with Burst(b.address, 12):
            origin.wait_for_in_flight(18)
            assert origin.spread <= 4, origin


def shared_keys(balancer: Balancer) -> int:
    """How many keys have a share of their limit at this balancer, since they have requests in flight at others."""
    segment = running_segment(balancer.master)
    return sum(map(bool, segment.cells[segment.layout.key_shares]))


def let_in_beside(setup: Setup) -> int:
    """How many requests of a key one balancer lets in while the other one has the whole limit in flight."""
    origin, (a, b) = setup.origin, setup.balancers
    wait_until_together(a, b)
    with origin.released_at_end(), Burst(a.address, LIMIT, host="few.example"):
        origin.wait_for_in_flight(LIMIT)
        wait_until(lambda: shared_keys(b) == 1, "the other balancer knows of the key", PATIENCE_S)
        with Burst(b.address, LIMIT, host="few.example") as burst:
            wait_until(lambda: sum(origin.in_flight) - LIMIT + burst.answered() == LIMIT, "each is let in or refused")
            origin.release()
            statuses = burst.statuses()
    assert set(statuses) <= {200, 429}
    wait_until(lambda: shared_keys(a) == shared_keys(b) == 0, "nothing is left of the key", PATIENCE_S)
    return statuses.count(200)


def test_requests_at_once_of_a_key_count_over_both(setup: Setup) -> None:
    """The other one lets its part by number in, which is half of the limit. On a busy machine it may be alone for a moment."""
    origin, (_, b) = setup.origin, setup.balancers
    wait_until(lambda: let_in_beside(setup) == LIMIT // 2, "the limit holds over both", PATIENCE_S)
    with origin.released_at_end(), Burst(b.address, LIMIT, host="few.example"):
        origin.wait_for_in_flight(LIMIT)


def test_a_store_that_comes_and_goes_costs_no_request(setup: Setup) -> None:
    store, origin, (a, b) = setup
    with Load(a.address, 2, "/", pause_s=0.01) as load, Load(b.address, 2, "/", pause_s=0.01) as other:
        wait_until_together(a, b)
        for harm in (store.kill, store.stop_running):
            harm()
            wait_until(lambda: not seen(a).together and not seen(b).together, "each goes on by itself", PATIENCE_S)
            load.wait_for_successes(20, PATIENCE_S)
            (store.start if store.process is None else store.go_on)()
            wait_until_together(a, b)
        store.command("FLUSHALL")
        load.wait_for_successes(20, PATIENCE_S)
        other.wait_for_successes(20, PATIENCE_S)
        wait_until_together(a, b)
    assert load.failures == other.failures == []
    told = a.command("status", "--cluster", "--master", str(a.master)).stdout
    assert "a (this one)" in told and "shares" in told and "2 balancers" in told
