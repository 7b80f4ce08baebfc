"""`drain`, `ready`, `maintenance` and `weight` on instances in real shared memory."""
from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from prefork_lb.cli import running
from prefork_lb.cli import servers as commands
from prefork_lb.cli.main import main
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig, ServerConfig
from prefork_lb.config.sticky import StickyConfig
from prefork_lb.shared import finding
from prefork_lb.shared import layout as at
from prefork_lb.shared.desired import lay_down
from prefork_lb.shared.finding import DIRECTORY, visible_segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check, Ejection, Event
from prefork_lb.wiring.room import packed
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.shared.processes import Child, Master
from tests.unit.upstream.parts import make_pool, new_server

ONE, TWO, UNIX, V6, TLS = "10.0.0.1:80", "app.example:8001", "unix:/run/b.sock", "[2001:db8::1]:80", "https://10.0.0.9:443"
ALL = (ONE, TWO, UNIX, V6, TLS)


class Instance:
    """An instance with the pools web and api; both have the first server, web has all."""

    def __init__(self, pools: Sequence[tuple[str, Sequence[str]]] = (("web", ALL), ("api", (ONE,)))) -> None:
        self.process = Master()
        self.segment: Segment = attach_or_create(self.process.pid, 4, 8)
        self.ledger = Ledger(self.segment)
        self.states = States(self.segment)
        entries = [PoolEntry(name, [ServerEntry(address, 1, 0, False) for address in servers]) for name, servers in pools]
        found = register(self.segment, self.ledger, entries)
        self.slots = {(name, address): slot for name, servers in pools
                      for address, slot in zip(servers, found[name].slots, strict=True)}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def set(self) -> dict[tuple[str, str], tuple[Admin, int]]:
        """The states and weights that are not as at the start."""
        found = {key: (Admin(self.states.admin[slot]), self.states.weight_set[slot]) for key, slot in self.slots.items()}
        return {key: values for key, values in found.items() if values != (Admin.READY, 0)}

    def claim(self, pool: str, address: str, times: int = 1) -> None:
        with self.ledger.locked():
            for _ in range(times):
                self.ledger.claim(self.slots[pool, address])

    def release(self, pool: str, address: str) -> None:
        self.ledger.release(self.slots[pool, address])


@pytest.fixture
def new_instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Instance]]:
    """Makes instances; the commands see these, and none that runs on the machine besides."""
    made: list[Instance] = []

    def mine() -> Iterator[Segment]:
        names = {instance.segment.name for instance in made}
        return (segment for segment in visible_segments() if segment.name in names)

    def make(*pools: tuple[str, Sequence[str]]) -> Instance:
        made.append(Instance(pools) if pools else Instance())
        return made[-1]

    monkeypatch.setattr(running, "visible_segments", mine)
    yield make
    for instance in made:
        instance.process.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(DIRECTORY / instance.segment.name)


@pytest.fixture
def instance(new_instance: Callable[..., Instance]) -> Instance:
    return new_instance()


class Time:
    """The commands' clock; while they sleep, `meanwhile` is done, once a nap, and then nothing."""

    def __init__(self) -> None:
        self.now, self.naps = 100.0, 0
        self.meanwhile: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds
        self.naps += 1
        assert self.naps < 10_000, "it waits for ever"
        if self.meanwhile:
            self.meanwhile.pop(0)()


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=made.monotonic, sleep=made.sleep))
    return made


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def said(*arguments: object) -> str:
    """What a command that succeeds says."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: object, code: int = 1) -> str:
    """What a command that fails says."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    return result.stderr


# -- what they set ---------------------------------------------------------------------------------------------------


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
    instance.states.eject(slot, Event.FAILED, 5)
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


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["drain", "maintenance"])
def test_waiting_ends_with_the_last_request(instance: Instance, time: Time, command: str) -> None:
    instance.claim("web", ONE)
    instance.claim("api", ONE)
    time.meanwhile = [lambda: None, lambda: instance.release("web", ONE), lambda: instance.release("api", ONE)]
    assert said(command, ONE, "--wait").splitlines() == [
        f"{ONE} (pool web, api): {command}, 2 in flight", f"{ONE}: nothing in flight any more"]
    assert time.naps == 3


def test_other_pools_and_servers_are_not_waited_for(instance: Instance, time: Time) -> None:
    instance.claim("web", ONE)
    instance.claim("web", TWO)
    assert "nothing in flight any more" in said("drain", ONE, "--pool", "api", "--wait")
    assert time.naps == 0


@pytest.mark.parametrize(("timeout", "naps"), [("0", 0), ("0.05", 1), ("2", 40), ("1.5", 30)])
def test_waiting_has_an_end(instance: Instance, time: Time, timeout: str, naps: int) -> None:
    instance.claim("web", TWO, 2)
    result = invoke("drain", TWO, "--wait", "--timeout", timeout)
    assert result.exit_code == 1
    assert result.stdout == f"{TWO} (pool web): drain, 2 in flight\n"
    assert result.stderr == f"Error: 2 still in flight after {float(timeout):g} s\n"
    assert abs(time.naps - naps) <= 1, "sums of floats"
    assert instance.set == {("web", TWO): (Admin.DRAIN, 0)}, "it stays drained"


def test_the_time_to_wait_is_five_minutes_by_default(instance: Instance, time: Time) -> None:
    instance.claim("web", TWO)
    begun = time.now
    assert "1 still in flight after 300 s" in invoke("drain", TWO, "--wait").stderr
    assert time.now - begun == pytest.approx(300, abs=0.2)


def test_what_has_ended_in_time_is_no_timeout(instance: Instance, time: Time) -> None:
    assert said("drain", TWO, "--wait", "--timeout", "0").endswith(f"{TWO}: nothing in flight any more\n")
    assert time.naps == 0


def keep_sessions(instance: Instance) -> None:
    """Give the pool web sessions by cookie."""
    servers = tuple(ServerConfig(address=address) for pool, address in instance.slots if pool == "web")
    with instance.ledger.locked():
        lay_down(instance.segment, packed(Config(pools={"web": PoolConfig(servers=servers, sticky=StickyConfig())})))


def test_waiting_goes_on_until_no_session_can_be_expected(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    drained = instance.states.drained
    slot = instance.slots["web", TWO]

    def let_a_minute_pass() -> None:
        drained[slot] -= 60_000

    time.meanwhile = [*[lambda: None] * 199, let_a_minute_pass]
    told = said("drain", TWO, "--wait").splitlines()
    assert told[-1] == f"{TWO}: nothing in flight any more, and no request of a session for 60 s"
    assert all(line.startswith("sessions that may come back (no request of one for ") for line in told[1:-1]) and len(told) > 2
    assert 200 <= time.naps <= 220


def test_sessions_that_may_come_back_are_no_success_when_the_time_is_over(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    result = invoke("drain", TWO, "--wait", "--timeout", "3")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: sessions that may come back \(no request of one for \d+ s, of 60 s\) after 3 s\n", result.stderr)


def test_a_request_that_was_in_flight_may_have_been_a_session_s(instance: Instance, time: Time) -> None:
    keep_sessions(instance)
    slot = instance.slots["web", TWO]
    instance.claim("web", TWO)

    def end_it() -> None:
        instance.states.drained[slot] -= 60_000
        instance.release("web", TWO)

    time.meanwhile = [end_it]
    assert "sessions that may come back" in invoke("drain", TWO, "--wait", "--timeout", "3").stderr


def test_without_wait_nobody_waits(instance: Instance, time: Time) -> None:
    instance.claim("web", TWO)
    said("drain", TWO, "--timeout", "5")
    assert time.naps == 0


def test_the_end_of_the_instance_ends_the_wait(instance: Instance, time: Time) -> None:
    """Nobody sweeps the rows of its workers any more, so their claims stay."""
    instance.claim("web", TWO, 2)
    time.meanwhile = [lambda: None, instance.process.kill]
    result = invoke("drain", TWO, "--wait")
    assert (result.exit_code, result.stderr) == (1, "Error: the instance has ended, with 2 in flight\n")
    assert time.naps == 2


@pytest.mark.parametrize("timeout", ["-1", "soon", "nan"])
def test_a_time_that_is_none_is_told(instance: Instance, timeout: str) -> None:
    assert "Invalid value for '--timeout'" in refused("drain", TWO, f"--timeout={timeout}", code=2)
    assert instance.set == {}


@pytest.mark.parametrize("command", [["ready", TWO, "--wait"], ["weight", TWO, "5", "--wait"], ["ready", TWO, "--timeout", "1"]])
def test_there_is_nothing_to_wait_for_otherwise(instance: Instance, command: list[str]) -> None:
    assert "No such option" in refused(*command, code=2)


# -- which instance --------------------------------------------------------------------------------------------------

COMMANDS = [["drain", TWO], ["ready", TWO], ["maintenance", TWO], ["weight", TWO, "5"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_an_instance_that_is_said(new_instance: Callable[..., Instance], command: list[str]) -> None:
    assert refused(*command) == "Error: no instance runs (of this user)\n"
    for master in (1, 0):
        said_no = refused(*command, "--master", master)
        assert said_no == f"Error: no instance of the gunicorn master {master} runs (of this user)\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_with_several_instances_one_is_to_be_chosen(new_instance: Callable[..., Instance], command: list[str]) -> None:
    instances = [new_instance(), new_instance()]
    told = refused(*command)
    assert told.startswith("Error: several instances run; choose one by its gunicorn master: --master with one of ")
    assert set(told.rstrip("\n").partition(" with one of ")[2].split(", ")) == {str(one.pid) for one in instances}
    assert all(one.set == {} for one in instances)


def test_the_one_that_is_chosen_is_set(new_instance: Callable[..., Instance]) -> None:
    one, other = new_instance(), new_instance()
    said("drain", TWO, "--master", other.pid)
    said("weight", UNIX, 5, "--master", one.pid)
    assert other.set == {("web", TWO): (Admin.DRAIN, 0)} and one.set == {("web", UNIX): (Admin.READY, 5)}
    assert refused("drain", TWO, "--master", os.getpid()) == (
        f"Error: no instance of the gunicorn master {os.getpid()} runs (of this user)\n")


def test_the_only_one_may_be_named_too(instance: Instance) -> None:
    said("drain", TWO, "--master", instance.pid)
    assert instance.set
    assert "no instance of the gunicorn master 1 runs" in refused("drain", TWO, "--master", 1)


def test_during_an_upgrade_both_masters_are_the_instance(instance: Instance) -> None:
    successor = Master()
    try:
        attach_or_create(successor.pid, 4, 8, predecessor=instance.pid)
        for number, command in enumerate((["--master", instance.pid], ["--master", successor.pid], []), 1):
            said("weight", TWO, number, *command)
            assert instance.set == {("web", TWO): (Admin.READY, number)}
    finally:
        successor.kill()


def test_an_instance_whose_master_is_dead_is_none(new_instance: Callable[..., Instance]) -> None:
    dead, alive = new_instance(), new_instance()
    dead.process.kill()
    said("drain", TWO)
    assert alive.set and not dead.set
    alive.process.kill()
    assert refused("drain", TWO) == "Error: no instance runs (of this user)\n"


def test_an_instance_of_another_version_is_left_alone(instance: Instance) -> None:
    instance.segment.cells[at.H_VERSION] = at.VERSION + 1
    assert "no instance runs" in refused("drain", TWO)
    instance.segment.cells[at.H_VERSION] = at.VERSION
    assert instance.set == {}


def test_an_instance_that_may_not_be_touched_is_told(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str) -> Segment:
        raise SegmentError(f"/dev/shm/{name}: Permission denied; it belongs to another user: use that user, or root")

    monkeypatch.setattr(finding, "segment_names", lambda uid: [instance.segment.name])
    monkeypatch.setattr(finding, "open_segment", forbidden)
    assert refused("drain", TWO) == (
        f"Error: /dev/shm/{instance.segment.name}: Permission denied; it belongs to another user: use that user, or root\n")


@pytest.mark.parametrize(("uid", "looked_for"), [(0, None), (1000, 1000)])
def test_root_sees_the_instances_of_all_users(monkeypatch: pytest.MonkeyPatch, uid: int, looked_for: int | None) -> None:
    asked: list[int | None] = []
    monkeypatch.setattr(finding, "segment_names", lambda uid: asked.append(uid) or [])
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    refused("drain", TWO)
    assert asked == [looked_for]


@pytest.mark.parametrize("arguments", [["drain"], ["weight", TWO], ["drain", TWO, ONE], ["drain", TWO, "--master", "none"]])
def test_wrong_usage_is_told(instance: Instance, arguments: list[str]) -> None:
    assert refused(*arguments, code=2).startswith("Usage: ")
    assert instance.set == {}
