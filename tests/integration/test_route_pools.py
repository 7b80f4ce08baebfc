"""Routes with several pools, over real workers."""
from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.support.balancer import FRONT_ENDS, GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import fetch
from tests.support.pattern import pattern
from tests.support.place import HOST
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SPLIT = """
[[routes]]
split = { stable = 3, canary = 1 }
split_cookie = "release"
failover = "stable"
"""
MIRROR = """
[[routes]]
pool = "web"
mirror = { pool = "shadow" }

[[routes]]
paths = ["/bytes"]
pool = "web"
mirror = { pool = "silent" }
"""


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_requests_are_split_and_go_to_the_other_pool_without_servers(tmp_path: Path, front_end: FrontEnd) -> None:
    with Rig(tmp_path) as rig:
        origin = rig.origin(2)
        pools = (pool_text([address], name=name) for address, name in zip(origin.addresses, ("stable", "canary"), strict=True))
        balancer = rig.balancer("".join(pools) + SPLIT, front_end, workers=1)
        stable, canary = (server.name for server in origin.servers)
        answers = [fetch(balancer.address) for _ in range(40)]
        counts = Counter(answer.served_by for answer in answers)
        assert abs(counts[canary] - 10) <= 2, counts
        chosen = {answer.served_by: (answer.value("Set-Cookie") or "").partition(";")[0] for answer in answers}
        assert chosen == {stable: "release=stable", canary: "release=canary"}
        stay = [("Cookie", "release=canary")]
        assert {fetch(balancer.address, fields=stay).served_by for _ in range(5)} == {canary}
        assert balancer.by_hand("drain", origin.addresses[1]).returncode == 0
        response = fetch(balancer.address, "/x", method="POST", fields=stay, body=bytes(pattern(0, 1000)))
        assert (response.served_by, response.value("Set-Cookie")) == (stable, None)


def test_weights_that_were_set_hold_for_all_workers_over_a_reload_and_a_restart(rig: Rig) -> None:
    origin, state = rig.origin(2), rig.folder / "state.json"
    pools = (pool_text([address], name=name) for address, name in zip(origin.addresses, ("stable", "canary"), strict=True))
    balancer = rig.balancer("".join(pools) + SPLIT + f'[state]\nfile = "{state}"\n', PROXY, workers=2)
    stable, canary = (server.name for server in origin.servers)

    def served_by(cookie: str) -> set[str | None]:
        return {fetch(balancer.address, fields=[("Cookie", cookie)]).served_by for _ in range(20)}

    assert served_by("release=canary") == {canary}
    done = balancer.by_hand("split", "1", "canary=0")
    assert (done.returncode, done.stdout) == (0, "route 1: stable 3, canary 0 (configured: 1): any host; any path\n")
    assert served_by("release=canary") == {stable}
    balancer.reload()
    assert served_by("release=canary") == {stable}
    wait_until(lambda: state.exists() and '"canary": 0' in state.read_text(), "the weight is in the state file")
    balancer.stop()
    balancer.start()
    assert served_by("release=canary") == {stable}
    assert balancer.by_hand("split", "1", "stable=0", "canary=1").returncode == 0
    assert served_by("release=stable") == {canary}


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=str)
def test_requests_are_copied_and_a_mirror_that_is_silent_is_not_noticed(tmp_path: Path, front_end: FrontEnd) -> None:
    with Rig(tmp_path) as rig, socket.create_server((HOST, 0), backlog=256) as listener:  # connects, and answers nothing
        origin = rig.origin(2)
        silent = f"{HOST}:{listener.getsockname()[1]}"
        addresses = zip([*origin.addresses, silent], ("web", "shadow", "silent"), strict=True)
        text = "".join(pool_text([address], name=name) for address, name in addresses) + MIRROR
        balancer = rig.balancer(text, front_end, workers=1)
        body = bytes(pattern(0, 1000))
        response = fetch(balancer.address, "/upload", method="POST", body=body)
        assert (response.served_by, response.json()["received"]) == (origin.servers[0].name, 1000)
        wait_until(lambda: (1, "/upload") in [(arrival.server, arrival.target) for arrival in origin.arrivals], "the copy came")
        balancer.wait_until_idle(20)
        for _ in range(80):
            assert fetch(balancer.address, "/bytes").status == 200
        wait_until(lambda: balancer.status().in_flight[silent] == 64, "the copies that there may be at a time are under way")
