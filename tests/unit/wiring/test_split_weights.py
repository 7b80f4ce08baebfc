"""Weights of splits that were set, over what a worker does when it starts."""
from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from prefork_lb.config.model import Config, StateConfig
from prefork_lb.config.routes import RouteConfig, route_number
from prefork_lb.observe.splits import splits_in_force
from prefork_lb.shared.split_weights import id_of, set_weights, write_set_weights
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.room import room_for
from prefork_lb.wiring.routes import make_router, weights_of
from tests.unit.shared.processes import Master
from tests.unit.wiring.test_room import config, master  # noqa: F401


def with_split(split: dict[str, int], path: str = "/a") -> Config:
    route = RouteConfig(split=split, paths=(path,))
    return msgspec.structs.replace(config(1, 2), routes=(RouteConfig(pool="p0"), route))


def worker(master: Master, config: Config, read_at: int) -> Membership:  # noqa: F811
    member = Membership(master.pid, 0, room_for(config, 2), one_thread=True, read_at=read_at)
    member.put_into_force(config)
    return member


def test_they_stay_with_a_route_that_asks_for_the_same(master: Master) -> None:  # noqa: F811
    first = worker(master, with_split({"p0": 95, "p1": 5}), 100)
    route = route_number(with_split({}).routes[1])
    with first.ledger.locked():
        write_set_weights(first.segment, route, {"p1": 20})
    config = with_split({"p0": 50, "p1": 50})
    worker(master, config, 101)
    [split] = splits_in_force(first.segment, config)
    assert (split.weights, split.split.weights) == ({"p0": 50, "p1": 20}, {"p0": 50, "p1": 50})
    other = with_split({"p0": 50, "p1": 50}, "/b")
    worker(master, other, 100)  # read before: its master is older
    assert route in set_weights(first.segment)
    worker(master, other, 102)
    assert set_weights(first.segment) == {}


def test_the_first_worker_takes_them_from_the_state_file(master: Master, tmp_path: Path) -> None:  # noqa: F811
    route, file = route_number(with_split({}).routes[1]), tmp_path / "state.json"
    saved = {"version": 1, "written": int(time.time()), "pools": {}, "splits": {id_of(route): {"p0": 0}, id_of(1): {"p0": 7}}}
    file.write_text(json.dumps(saved))
    config = msgspec.structs.replace(with_split({"p0": 1, "p1": 1}), state=StateConfig(file=str(file)))
    member = worker(master, config, 100)
    serving = make_router(config, weights=weights_of(member.segment, member.ledger)).routes[1].serving
    assert serving is not None and serving.split is not None
    assert {serving.split.pick(()) for _ in range(10)} == {"p1"} and set_weights(member.segment) == {route: {"p0": 0}}
