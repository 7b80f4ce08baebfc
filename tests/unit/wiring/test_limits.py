"""Limits of a rate in an instance: whether they are told to other balancers, and how their keys are known there."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from prefork_lb.clock import monotonic
from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.model import Config
from prefork_lb.config.routes import RateConfig, RouteConfig
from prefork_lb.errors import ConfigError
from prefork_lb.net.networks import lies_in
from prefork_lb.routing.template import Facts
from prefork_lb.shared.making import remove_segment
from prefork_lb.shared.rate_uses import RateUses
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.room import room_for
from prefork_lb.wiring.routes import limiters
from tests.unit.shared.processes import Master
from tests.unit.wiring.test_room import config

RATE = RateConfig(per_second=1000)
ROUTE = RouteConfig(pool="p0", rate=RATE)
HEAD = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", HeadLimits())
FACTS = Facts(HEAD, b"/", "h", (), ClientInfo("192.0.2.1", b"http", 80, False), lies_in(()))

Start = Callable[[Config], Membership]


@pytest.fixture
def start() -> Iterator[Start]:
    masters: list[Master] = []

    def start(config: Config) -> Membership:
        masters.append(Master())
        member = Membership(masters[-1].pid, 0, room_for(config, 2), one_thread=True)
        member.put_into_force(config)
        return member

    yield start
    for master in masters:
        remove_segment(master.pid)
        master.kill()


def limited(cluster: ClusterConfig | None) -> Config:
    return msgspec.structs.replace(config(1), routes=(ROUTE,), cluster=cluster)


def use(member: Membership, config: Config) -> dict[int, int]:
    """One request; what other balancers are told of it."""
    uses = RateUses(member.segment) if member.segment.layout.rate_uses else None
    make = limiters(config, member.segment, member.ledger, monotonic)
    assert make is not None
    take = make(ROUTE, RATE)(FACTS)
    assert take is not None
    take()
    return uses.news() if uses is not None else {}


def test_all_balancers_that_share_know_a_key_by_one_number(start: Start, tmp_path: Path) -> None:
    plain, secret = tmp_path / "secret", tmp_path / "other"
    plain.write_text("a secret of all balancers\n")
    secret.write_text("another secret of balancers\n")
    site = ClusterConfig(url="redis://h")
    configs = [limited(site), limited(msgspec.structs.replace(site, url="redis://other")),
               limited(msgspec.structs.replace(site, name="other")),
               limited(msgspec.structs.replace(site, secret_file=str(plain))),
               limited(msgspec.structs.replace(site, secret_file=str(secret)))]
    first, same, *others = (use(start(config), config) for config in configs)
    assert first == same and list(first.values()) == [1_000_000]
    assert len({*first, *(key for other in others for key in other)}) == 4
    plain.unlink()
    with pytest.raises(ConfigError, match=r"cluster\.secret_file"):
        use(start(configs[3]), configs[3])


def test_without_other_balancers_nothing_is_told(start: Start) -> None:
    alone = limited(None)
    assert room_for(alone, 2).rate_uses == 0 and use(start(alone), alone) == {}
    assert room_for(msgspec.structs.replace(config(1), cluster=ClusterConfig(url="redis://h")), 2).rate_uses == 0
    shared = limited(ClusterConfig(url="redis://h"))
    assert use(start(shared), alone) == {}, "a reload has taken [cluster] away"


def test_a_reload_that_adds_the_cluster_says_that_limits_are_not_shared(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    member, shared = start(limited(None)), limited(ClusterConfig(url="redis://h"))
    assert "limits of a rate hold in this balancer alone" not in caplog.text
    member.put_into_force(shared)
    assert "limits of a rate hold in this balancer alone" in caplog.text
    assert use(member, shared) == {}
