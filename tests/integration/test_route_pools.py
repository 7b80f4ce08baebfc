"""Routes with several pools, over real workers."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.balancer import GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import fetch
from tests.support.pattern import pattern
from tests.support.rig import Rig

ROUTES = """
[[routes]]
split = { stable = 3, canary = 1 }
split_cookie = "release"
failover = "stable"
"""


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_requests_are_split_and_go_to_the_other_pool_without_servers(tmp_path: Path, front_end: FrontEnd) -> None:
    with Rig(tmp_path) as rig:
        origin = rig.origin(2)
        pools = (pool_text([address], name=name) for address, name in zip(origin.addresses, ("stable", "canary"), strict=True))
        balancer = rig.balancer("".join(pools) + ROUTES, front_end, workers=1)
        stable, canary = (server.name for server in origin.servers)
        answers = [fetch(balancer.address) for _ in range(40)]
        counts = Counter(answer.served_by for answer in answers)
        assert abs(counts[canary] - 10) <= 2, counts
        chosen = {answer.served_by: (answer.value("Set-Cookie") or "").partition(";")[0] for answer in answers}
        assert chosen == {stable: "release=stable", canary: "release=canary"}
        stay = [("Cookie", "release=canary")]
        assert {fetch(balancer.address, fields=stay).served_by for _ in range(5)} == {canary}
        assert balancer.by_hand("drain", origin.addresses[1]).returncode == 0
        response = fetch(balancer.address, "/upload", method="POST", fields=stay, body=bytes(pattern(0, 1000)))
        assert (response.served_by, response.value("Set-Cookie"), response.json()["received"]) == (stable, None, 1000)
