"""What a worker that starts takes for a reload: a configuration that was read after the one in force."""
from __future__ import annotations

import pytest

from prefork_lb.shared.steering import Steering
from prefork_lb.shared.view import view
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.room import room_for
from tests.unit.shared.processes import Master
from tests.unit.wiring.test_room import config, master  # noqa: F401


def worker(master: Master, servers: int, read_at: int) -> Membership:  # noqa: F811
    """A worker that puts a configuration into force, which its master read at this instant."""
    member = Membership(master.pid, 0, room_for(config(2), 2), one_thread=True, read_at=read_at)
    member.put_into_force(config(servers))
    return member


def remove_one(member: Membership) -> set[str]:
    """The servers that are left."""
    found = view(member.segment).servers
    pool = max({each.pool for each in found}, key=[each.pool for each in found].count)
    address = next(each.address for each in found if each.pool == pool)
    Steering(member.segment, member.ledger, member.states).remove_server(pool, address, who="me")
    return names(member)


def names(member: Membership) -> set[str]:
    return {f"{each.pool} {each.address}" for each in view(member.segment).servers}


@pytest.mark.parametrize(("read_at", "servers", "is_back"), [
    (100, 4, False),  # it replaces a dead worker of the same master
    (50, 4, False),  # of an older master
    (101, 4, True),
    (101, 5, True),
])
def test_a_removed_server_is_back_when_a_master_has_read_its_configuration_since(
        master: Master, read_at: int, servers: int, is_back: bool) -> None:  # noqa: F811
    first = worker(master, 4, 100)
    before = names(first)
    left = remove_one(first)
    worker(master, servers, read_at)
    assert left < before
    assert before <= names(first) if is_back else names(first) == left
    newest = names(first)
    worker(master, servers, read_at)  # another worker of the same reload
    assert names(first) == newest


@pytest.mark.parametrize(("servers", "is_back"), [(4, False), (5, True)])
def test_where_workers_read_it_themselves_it_is_back_when_the_configuration_has_changed(
        master: Master, servers: int, is_back: bool) -> None:  # noqa: F811
    first = worker(master, 4, 0)
    before, left = names(first), remove_one(first)
    worker(master, servers, 0)
    assert before <= names(first) if is_back else names(first) == left
