"""`drain`, `ready`, `maintenance` and `weight` on instances in real shared memory."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin
from prefork_lb.shared.transitions import Check, Ejection, StateEvent
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.cli.instances import ALL, ONE, TLS, TWO, UNIX, V6, Instance, Time, refused, said
from tests.unit.shared.processes import Child
from tests.unit.upstream.parts import make_pool, new_server


@pytest.mark.parametrize(("command", "state"), [("drain", Admin.DRAIN), ("maintenance", Admin.MAINTENANCE)])
def test_a_state_is_set(instance: Instance, command: str, state: Admin) -> None:
    instance.claim("web", TWO, 3)
    assert said(command, TWO) == f"{TWO} (pool web): {command}, 3 in flight\n"
    assert instance.set == {("web", TWO): (state, 0)}


@pytest.mark.parametrize("before", ["drain", "maintenance"])
def test_ready_takes_it_back(instance: Instance, before: str) -> None:
    said(before, TWO)
    said(before, UNIX)
    assert said("ready", TWO) == f"{TWO} (pool web): ready, 0 in flight\n"
    assert list(instance.set) == [("web", UNIX)]
    assert instance.states.risen[instance.slots["web", TWO]] > 0, "with slow start"


def test_from_drain_to_maintenance_and_back(instance: Instance) -> None:
    for command, state in (("drain", Admin.DRAIN), ("maintenance", Admin.MAINTENANCE), ("drain", Admin.DRAIN)):
        said(command, UNIX)
        assert instance.set == {("web", UNIX): (state, 0)}


@pytest.mark.parametrize("weight", [1, 7, 1000])
def test_a_weight_is_set_and_taken_back(instance: Instance, weight: int) -> None:
    assert said("weight", TWO, weight) == f"{TWO} (pool web): weight {weight}\n"
    assert instance.set == {("web", TWO): (Admin.READY, weight)}
    assert said("weight", TWO, "default") == f"{TWO} (pool web): weight default\n"
    assert instance.set == {}


@pytest.mark.parametrize("weight", ["0", "1001", "1.5", "heavy", "", "Default", " 5", "1e2", "\N{ARABIC-INDIC DIGIT FIVE}", "+5"])
def test_what_is_no_weight_is_told(instance: Instance, weight: str) -> None:
    assert f'{weight!r} is no weight; expected 1 to 1000, or "default"' in refused("weight", TWO, weight, code=2)
    assert instance.set == {}


def test_a_weight_of_thousands_of_digits_is_told(instance: Instance) -> None:
    assert "99... is no weight" in refused("weight", TWO, "9" * 5000, code=2)
    said("weight", TWO, "0" * 5000 + "7")
    assert instance.set == {("web", TWO): (Admin.READY, 7)}


@pytest.mark.parametrize("weight", ["-1", "--5"])
def test_a_weight_below_nothing_is_no_option(instance: Instance, weight: str) -> None:
    assert "No such option" in refused("weight", TWO, weight, code=2)


def test_state_and_weight_do_not_touch_each_other(instance: Instance) -> None:
    said("weight", TWO, 5)
    said("drain", TWO)
    assert instance.set == {("web", TWO): (Admin.DRAIN, 5)}
    said("weight", TWO, "default")
    assert instance.set == {("web", TWO): (Admin.DRAIN, 0)}


@pytest.mark.parametrize(("limit", "expected"), [("1", 1), ("0050", 50), ("1000000", 1_000_000), ("none", 0), ("default", None)])
def test_a_limit_is_set_lifted_and_given_back(instance: Instance, limit: str, expected: int | None) -> None:
    slot = instance.slots["web", TWO]
    said("limit", TWO, 7)
    assert instance.states.limit_set(slot) == 7
    assert said("limit", TWO, limit) == f"{TWO} (pool web): limit {limit}\n"
    assert instance.states.limit_set(slot) == expected


@pytest.mark.parametrize("limit", ["0", "000", "1000001", "1.5", "None", "", "9" * 5000])
def test_what_is_no_limit_is_refused(instance: Instance, limit: str) -> None:
    assert 'is no limit; expected 1 to 1000000, "none" or "default"' in refused("limit", TWO, limit, code=2)
    assert instance.states.limit_set(instance.slots["web", TWO]) is None


@pytest.mark.parametrize("command", [("drain", ONE), ("maintenance", ONE), ("weight", ONE, 3)])
def test_a_worker_that_runs_obeys_at_its_next_request(new_instance: Callable[..., Instance], command: tuple[object, ...]) -> None:
    instance = new_instance(("web", (ONE, TWO)))
    servers = [new_server(slot) for slot in instance.slots.values()]
    pool = make_pool(instance.ledger, servers, new_policy("first"))
    pool.lease(REQUEST, ()).abandon()
    said(*command)
    assert (pool.lease(REQUEST, ()).server is servers[0]) == (command[0] == "weight")
    assert servers[0].weight == (3 if command[0] == "weight" else 1)


def test_what_others_decide_stays(instance: Instance) -> None:
    slot = instance.slots["web", TWO]
    instance.states.set_check(slot, Check.DOWN, "status 503")
    instance.states.eject(slot, StateEvent.FAILED, 5)
    for command in (["drain", TWO], ["ready", TWO], ["weight", TWO, 9]):
        said(*command)
    assert (instance.states.check[slot], instance.states.note(slot)) == (Check.DOWN, "status 503")
    assert (instance.states.ejection[slot], instance.states.ejected_until[slot]) == (Ejection.EJECTED, 5)


def test_a_command_takes_no_workers_row(new_instance: Callable[..., Instance]) -> None:
    instance = new_instance()
    for _ in range(20):
        said("drain", TWO)
    layout = instance.segment.layout
    assert sum(instance.segment.cells[layout.row(row) + at.R_PID] > 0 for row in range(layout.rows)) == 1


def test_claims_of_workers_that_were_killed_are_not_waited_for(instance: Instance, time: Time) -> None:
    def work() -> None:
        theirs = Ledger(instance.segment)
        with theirs.locked():
            theirs.claim(instance.slots["web", TWO])

    assert Child(work).wait() == 0
    assert "1 in flight" not in said("drain", TWO, "--wait")
    assert time.naps == 0


# -- which server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "meant"), [
    *((address, address) for address in ALL),
    ("[2001:DB8:0:0:0:0:0:1]:80", V6), ("[2001:0db8::0001]:80", V6), ("APP.Example:8001", TWO),
    ("http://10.0.0.1:80", ONE), ("http://10.0.0.1", ONE), ("https://10.0.0.9", TLS), ("HTTPS://10.0.0.9:443", TLS),
    ("http://[2001:db8::1]", V6),
])
def test_every_spelling_of_an_address_is_the_server(instance: Instance, asked: str, meant: str) -> None:
    assert said("drain", asked).startswith(f"{asked} (pool web")
    assert {address for _, address in instance.set} == {meant}


def test_a_server_of_several_pools_is_set_in_all(instance: Instance) -> None:
    instance.claim("web", ONE, 2)
    instance.claim("api", ONE)
    assert said("drain", ONE) == f"{ONE} (pool web, api): drain, 3 in flight\n"
    assert instance.set == {("web", ONE): (Admin.DRAIN, 0), ("api", ONE): (Admin.DRAIN, 0)}
    assert said("weight", ONE, 4) == f"{ONE} (pool web, api): weight 4\n"


@pytest.mark.parametrize("pool", ["web", "api"])
def test_or_in_the_pool_that_is_named(instance: Instance, pool: str) -> None:
    instance.claim("web", ONE, 2)
    instance.claim("api", ONE)
    in_flight = 2 if pool == "web" else 1
    assert said("drain", ONE, "--pool", pool) == f"{ONE} (pool {pool}): drain, {in_flight} in flight\n"
    said("weight", ONE, 4, "--pool", pool)
    assert instance.set == {(pool, ONE): (Admin.DRAIN, 4)}
    said("ready", "--pool", pool, ONE)
    assert instance.set == {(pool, ONE): (Admin.READY, 4)}


@pytest.mark.parametrize("command", [["drain"], ["ready"], ["maintenance"], ["weight", "--"]])
@pytest.mark.parametrize("server", ["10.0.0.1:81", "10.0.0.1", "nonsense", "", "unix:/run/other.sock", "10.0.0.9:443", "a\nb"])
def test_a_server_that_is_none_is_told_with_those_there_are(instance: Instance, command: list[str], server: str) -> None:
    number = ["5"] if command[0] == "weight" else []
    assert refused(*command, server, *number) == (
        f"Error: no server {server!r}; there are {ONE} (pool api), {ONE} (pool web), {V6} (pool web), {TWO} (pool web), "
        f"{TLS} (pool web), {UNIX} (pool web)\n")
    assert instance.set == {}


def test_a_server_of_another_pool_is_none(instance: Instance) -> None:
    assert refused("drain", TWO, "--pool", "api").startswith(f"Error: no server {TWO!r} in pool 'api'; there are ")
    assert refused("drain", TWO, "--pool", "none").startswith(f"Error: no server {TWO!r} in pool 'none'; there are ")
    assert instance.set == {}
