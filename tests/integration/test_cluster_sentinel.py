"""Two balancers that share through a store of several servers, one of which takes the place of another."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from prefork_lb.cli.running import running_segment
from prefork_lb.shared.events import EventKind, recent
from prefork_lb.shared.states import Admin
from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.instances import instance_of, set_admin
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.store import REDIS_SERVER, WHY_NOT, RedisServer
from tests.support.store_groups import Sharded, Watched
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason=WHY_NOT)

PATIENCE_S = 40.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        yield rig


def two_balancers(rig: Rig, origin: Origin, section: str) -> list[Balancer]:
    text = pool_text(origin.addresses) + f'[cluster]\nname = "site"\n{section}balancer = "%s"\n'
    return [rig.balancer(text % name, PROXY, workers=1) for name in ("a", "b")]


def are_together(balancers: list[Balancer]) -> bool:
    views = [instance_of(balancer.master) for balancer in balancers]
    return all(view.together and [each.name for each in view.balancers] == ["a", "b"] for view in views)


def states(balancer: Balancer) -> list[str]:
    return [server.state for server in instance_of(balancer.master).servers]


def has_gone_on_alone(balancer: Balancer) -> bool:
    """Whether it has been alone by now: it may share again already."""
    events = recent(running_segment(balancer.master), 0, 256)
    return any(event.kind == EventKind.BALANCER_LEFT and "goes on by itself" in event.text for event in events)


def check_that_another_takes_over(rig: Rig, origin: Origin, section: str, first: RedisServer) -> None:
    """What is set on one balancer holds on the other, before and after `first`, with the keys, is killed. No request fails."""
    balancers = a, b = two_balancers(rig, origin, section)
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(balancer.address, 1, "/", pause_s=0.02)) for balancer in balancers]
        wait_until(lambda: are_together(balancers), "both share", PATIENCE_S)
        set_admin(a.master, "web", Admin.DRAIN, origin.addresses[0])
        wait_until(lambda: states(b) == ["drain", "ready"], lambda: f"a drain spreads: {states(b)}", PATIENCE_S)
        first.kill()
        wait_until(lambda: all(map(has_gone_on_alone, balancers)), "each goes on by itself", PATIENCE_S)
        wait_until(lambda: are_together(balancers), "both share through another server", PATIENCE_S)
        assert states(a) == states(b) == ["drain", "ready"]
        set_admin(b.master, "web", Admin.READY, origin.addresses[0])
        wait_until(lambda: states(a) == ["ready", "ready"], lambda: f"what is set now spreads too: {states(a)}", PATIENCE_S)
        for load in loads:
            load.wait_for_successes(5, PATIENCE_S)
    assert [load.failures for load in loads] == [[], []]
    for balancer in balancers:
        log = balancer.log()
        assert "Traceback" not in log and "the store of [cluster] is there again" in log, log


def test_a_replica_takes_over_by_sentinels(tmp_path: Path, rig: Rig) -> None:
    with Watched(tmp_path) as group:
        check_that_another_takes_over(rig, rig.origin(2), group.section, group.primary)


def test_a_replica_takes_over_in_a_redis_cluster(tmp_path: Path, rig: Rig) -> None:
    with Sharded(tmp_path, replicas=True) as group:
        section = f'url = "{group.url}"\nkind = "cluster"\n'
        check_that_another_takes_over(rig, rig.origin(2), section, group.owner("prefork-lb:{site}:reports"))
