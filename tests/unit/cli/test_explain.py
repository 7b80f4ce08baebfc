"""`prefork-lb explain` on an instance in real shared memory: the pick that is due, why not the others, and nothing changed."""
from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from prefork_lb.balance.answer_times import AnswerTimes
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.cli.main import main
from prefork_lb.config.load import load
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.splits import splits_of
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.published_config import lay_down
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolSlots, enter
from prefork_lb.shared.transitions import Check, StateEvent
from prefork_lb.simulate.simulation import SimulatedServer
from prefork_lb.upstream.answering import now_us
from prefork_lb.wiring.room import packed, pool_entries, room_for
from tests.unit.shared.processes import Master

ADDRESSES = [f"10.0.0.{number}:80" for number in range(1, 5)]
SERVERS = "servers = [" + ", ".join(
    f'{{ address = "{address}", max_connections = 3, backup = {str(address == ADDRESSES[3]).lower()} }}'
    for address in ADDRESSES) + "]"
CONFIG = f"""
[pools.web]
{SERVERS}
[pools.web.sticky]
[pools.web.queue]
[pools.patient]
servers = [{{ address = "10.0.4.1:80", max_connections = 1, route = "a" }}, {{ address = "10.0.4.2:80", route = "b" }}]
[pools.patient.sticky]
mode = "route"
cookie = "JSESSIONID"
on_failure = "wait"
[pools.patient.queue]
[pools.learning]
servers = ["10.0.5.1:80", "10.0.5.2:80"]
[pools.learning.sticky]
mode = "learn"
cookie = "sid"
[pools.keyed]
policy = "consistent-hash"
key = "path"
servers = ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"]
[pools.quick]
policy = "peak-ewma"
servers = ["10.0.6.1:80", "10.0.6.2:80", "10.0.6.3:80"]
[pools.soon]
policy = "least-time"
servers = ["10.0.7.1:80", "10.0.7.2:80"]
[pools.chance]
policy = "random"
servers = ["10.0.2.1:80", "10.0.2.2:80"]
[pools.away]
mode = "redirect"
redirect_status = 307
servers = [{{ address = "10.0.3.1:80", public = "https://s1.example.com" }}]
[[routes]]
hosts = ["keyed.example"]
pool = "keyed"
[[routes]]
hosts = ["chance.example", "*.chance.example"]
paths = ["/a/", "/b/"]
pool = "chance"
[[routes]]
hosts = ["away.example"]
pool = "away"
[[routes]]
hosts = ["web.example"]
pool = "web"
[[routes]]
hosts = ["patient.example"]
pool = "patient"
[[routes]]
hosts = ["quick.example"]
pool = "quick"
[[routes]]
hosts = ["soon.example"]
pool = "soon"
[[routes]]
hosts = ["learning.example"]
pool = "learning"
[[routes]]
hosts = ["split.example"]
split = {{ chance = 1, soon = 1 }}
split_cookie = "release"
failover = "keyed"
[[routes]]
hosts = ["ruled.example"]
pool = "ruled"
allow = ["192.0.2.0/24"]
timeouts = {{ response = 300 }}
body_limit = 1000
bandwidth = {{ per_second = 65536 }}
[pools.ruled]
servers = ["10.0.8.1:80"]
filters = ["site_lb:Last"]
[[routes]]
hosts = ["moved.example"]
redirect = "https://web.example/{{rest}}"
"""


class Instance(NamedTuple):
    segment: Segment
    ledger: Ledger
    states: States
    slots: dict[str, list[int]]
    places: dict[str, PoolSlots]
    master: int

    def explain(self, url: str, *more: str) -> dict[str, Any]:
        before = bytes(self.segment.text)
        found = invoke("GET", url, *more, "--json", "--master", str(self.master))
        assert found.exit_code == 0, found.output
        assert bytes(self.segment.text) == before, "something was changed"
        values: dict[str, Any] = json.loads(found.stdout)
        return values

    def why(self, url: str, *more: str) -> list[str]:
        return [server["why"] for server in self.explain(url, *more)["servers"]]

    def change(self, apply: Callable[[], None]) -> None:
        with self.ledger.locked():
            apply()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], catch_exceptions=False)


@pytest.fixture
def instance(master: Master, tmp_path: Path) -> Iterator[Instance]:
    (tmp_path / "lb.toml").write_text(CONFIG)
    config = load(tmp_path / "lb.toml")
    segment = attach_or_create(master.pid, room_for(config, 4))
    ledger, states = Ledger(segment), States(segment)
    with ledger.locked():
        slots = enter(segment, ledger, pool_entries(config))
        lay_down(segment, packed(config))
    yield Instance(segment, ledger, states, {name: list(each.slots) for name, each in slots.items()}, slots, master.pid)


def test_the_pool_of_a_split_and_the_failover_are_told(instance: Instance) -> None:
    found = instance.explain("http://split.example/")
    assert found["pool"] in ("chance", "soon")
    assert "the route has a split (chance 1, soon 1): another request may get another pool" in found["notes"]
    found = instance.explain("http://split.example/", "-H", "Cookie: release=soon")
    assert (found["pool"], found["notes"]) == ("soon", ["the cookie release says the pool"])
    for state in (Admin.DRAIN, Admin.READY):
        for slot in instance.slots["soon"]:
            instance.change(lambda slot=slot, state=state: instance.states.set_admin(slot, state))  # type: ignore[misc]
            if state is Admin.READY:  # down instead
                instance.change(lambda slot=slot: instance.states.set_check(slot, Check.DOWN, "refused"))  # type: ignore[misc]
        found = instance.explain("http://split.example/", "-H", "Cookie: release=soon")
        assert (found["pool"], found["server"][:6]) == ("keyed", "10.0.1")
        assert found["notes"] == ["the route's failover serves: the other pool has no usable server"]


def test_the_weights_of_a_split_are_those_that_were_set(instance: Instance) -> None:
    config = configuration_of(instance.segment)
    assert config is not None
    [split] = splits_of(config)
    Steering(instance.segment, instance.ledger, instance.states).set_split(split, {"chance": 0}, "ann")
    for _ in range(2):
        found = instance.explain("http://split.example/", "-H", "Cookie: release=chance")
        assert found["pool"] == "soon" and found["notes"][0].startswith("the route has a split (chance 0, soon 1)")
        assert [rule["value"] for rule in found["rules"] if rule["name"] == "split"] == ["chance 0, soon 1"]


def test_each_server_has_its_reason(instance: Instance) -> None:
    slots, states = instance.slots["web"], instance.states
    instance.change(lambda: instance.ledger.claim(slots[0]))
    found = instance.explain("http://web.example/x")
    assert (found["route"], found["pool"], found["policy"]) == ("4: web.example; any path", "web", "least-connections")
    assert found["server"] == ADDRESSES[1] and found["session"] == "none; it would begin one"
    assert [server["why"] for server in found["servers"]] == [
        "busier: 1 in flight for a weight of 1, against 0 for 1", "it is picked by the policy", "as good, and not its turn",
        "backup: used only while no other server can be"]
    assert [server["in_flight"] for server in found["servers"]] == [1, 0, 0, 0]
    instance.change(lambda: states.set_admin(slots[1], Admin.DRAIN))
    assert instance.why("http://web.example/x")[1] == "drained: it keeps its sessions and gets no others"
    instance.change(lambda: states.set_admin(slots[1], Admin.MAINTENANCE))
    assert instance.why("http://web.example/x")[1] == "in maintenance"

    def down() -> None:
        states.set_check(slots[1], Check.DOWN, "status 503, expected 200-399")
        states.set_admin(slots[1], Admin.READY)

    instance.change(down)
    assert instance.why("http://web.example/x")[1] == "down: status 503, expected 200-399"
    instance.change(lambda: states.eject(slots[2], StateEvent.FAILED, now_ms() + 60_000))
    why = instance.why("http://web.example/x")[2]
    assert why.startswith("ejected for another ") and why.endswith(" s: its requests failed too often")
    for _ in range(2):
        instance.change(lambda: instance.ledger.claim(slots[0]))
    why = instance.why("http://web.example/x")
    assert (why[0], why[1], why[3]) == (
        "full: 3 of 3 in flight", "down: status 503, expected 200-399", "it is picked by the policy")


def test_a_request_that_nobody_can_take_is_said_to_be_refused(instance: Instance) -> None:
    for slot in instance.slots["web"] * 3:
        instance.change(lambda place=slot: instance.ledger.claim(place))
    found = instance.explain("http://web.example/")
    assert found["answer"] == "503: pool web: every server is at its max_connections" and not found["server"]
    assert "the pool has a queue: the request would wait in it before it is refused" in found["notes"]


def test_a_key_and_a_draw_and_a_redirect(instance: Instance) -> None:
    found = instance.explain("http://keyed.example/a?b=1")
    assert found["key"] == "/a" and [server["why"] for server in found["servers"]].count("the request's key leads to it") == 1
    assert instance.explain("http://keyed.example/a")["server"] == found["server"]
    assert f"the key leads to {found['server']} first" in [server["why"] for server in found["servers"]]
    home = [server["server"] for server in found["servers"]].index(found["server"])
    for _ in range(9):
        instance.change(lambda: instance.ledger.claim(instance.slots["keyed"][home]))
    assert instance.why("http://keyed.example/a")[home].startswith("over its bounded load")
    chance = instance.explain("http://x.chance.example/b/")
    assert chance["route"] == "2: chance.example, *.chance.example; /a/, /b/"
    assert "not drawn" in [server["why"] for server in chance["servers"]] and "draws by chance" in chance["notes"][0]
    assert instance.explain("http://away.example/x?y")["answer"] == "307: to https://s1.example.com/x?y"


def test_a_session_has_its_server_and_waits_or_moves_when_that_is_full(instance: Instance) -> None:
    cookie = ("-H", "Cookie: JSESSIONID=12.a")
    found = instance.explain("http://patient.example/", *cookie)
    assert (found["server"], found["session"]) == ("10.0.4.1:80", "of 10.0.4.1:80")
    assert [server["why"] for server in found["servers"]] == [
        "the session belongs to it", "the session belongs to 10.0.4.1:80"]
    instance.change(lambda: instance.ledger.claim(instance.slots["patient"][0]))
    found = instance.explain("http://patient.example/", *cookie)
    assert found["answer"].startswith("503: pool patient: the session's server 10.0.4.1:80 is full") and not found["server"]
    assert [server["why"] for server in found["servers"]] == [
        "full: 1 of 1 in flight", "the session belongs to 10.0.4.1:80, and no other may have it"]
    assert "the request would wait in it" in found["notes"][0]
    instance.places["patient"].block[at.P_WAITING] = 7
    layout = instance.segment.layout
    instance.segment.cells[layout.column(at.C_OWN_WAITING)][instance.slots["patient"][0]] = 2
    assert instance.explain("http://patient.example/", *cookie)["notes"][0] == (
        "2 requests wait for 10.0.4.1:80: this one would wait behind them")
    assert instance.explain("http://patient.example/")["notes"][0] == (
        "7 requests wait in the pool's queue: this one would wait behind them")
    assert instance.explain("http://learning.example/", "-H", "Cookie: sid=unknown")["session"] == "none; it would begin one"


def know_times(instance: Instance, pool: str, microseconds: Callable[[int, int], int]) -> None:
    """60 answers of each server of a pool, in so many microseconds by the server's place and the answer's number.

    They are as of a minute from now: a slow server whose last answer is a second old would be tried again.
    """
    place = instance.places[pool]
    servers = [SimulatedServer(slot, f"s{slot}") for slot in place.slots]
    memory = PolicyMemory(place.cells, place.columns)
    times = AnswerTimes(PolicySetup(random.Random(1), memory, servers))

    def answers() -> None:
        now = now_us() + 60_000_000
        for number in range(60):
            for index, slot in enumerate(place.slots):
                times.began(slot, now)
                times.answered(slot, microseconds(index, number), now, False)

    instance.change(answers)


def test_a_slow_server_is_told_with_its_average(instance: Instance) -> None:
    know_times(instance, "quick", lambda index, number: 300_000 if index == 1 and number > 30 else 10_000)
    found = instance.explain("http://quick.example/")
    assert found["servers"][1]["why"].startswith("slow: it answers, or is silent, ")
    assert found["servers"][1]["average_ms"] > 100 and 9 < found["servers"][0]["average_ms"] < 11
    assert found["server"] == "10.0.6.1:80"


def test_least_time_tells_whose_answer_would_come_later(instance: Instance) -> None:
    know_times(instance, "soon", lambda index, number: 20_000 if index == 0 else 10_000)
    found = instance.explain("http://soon.example/")
    assert found["server"] == "10.0.7.2:80"
    assert found["servers"][0]["why"].startswith("its answer would come later: ")


def test_what_the_balancer_itself_refuses_is_told(instance: Instance) -> None:
    assert instance.explain("http://nowhere.example/")["answer"].startswith("404: no route for host 'nowhere.example'")
    assert instance.explain("http://web.example/", "-H", "Transfer-Encoding: x")["answer"].startswith("400: Transfer-Encoding")
    assert instance.explain("/", "-H", "Host: a", "-H", "Host: b")["answer"] == "400: more than one Host"


def test_a_route_that_answers_itself_is_told(instance: Instance) -> None:
    found = instance.explain("http://moved.example/a")
    assert found["answer"].startswith("301: ") and found["route"].endswith(": moved.example; any path")


TIMEOUTS = [("timeouts.connect", "3 s", "proxy.timeouts.connect"), ("timeouts.response", "60 s", "proxy.timeouts.response"),
            ("timeouts.idle", "60 s", "proxy.timeouts.idle")]


def rules(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(rule["name"], rule["value"], rule["place"]) for rule in found["rules"]]


def test_what_holds_for_the_request_is_told_with_its_place(instance: Instance) -> None:
    of_route = [("allow", "192.0.2.0/24", "routes[9].allow"), ("body_limit", "1000 bytes", "routes[9].body_limit"),
                ("bandwidth", "65536 bytes a second", "routes[9].bandwidth")]
    found = instance.explain("http://ruled.example/", "--from", "192.0.2.9")
    assert found["route"].startswith("10: ") and found["server"] == "10.0.8.1:80"
    assert rules(found) == [*of_route, ("filters", "site_lb:Last", "pools.ruled.filters"), TIMEOUTS[0],
                            ("timeouts.response", "300 s", "routes[9].timeouts.response"), TIMEOUTS[2]]
    assert found["notes"] == ["filters look at it first, and may change what follows"]
    refused = instance.explain("http://ruled.example/", "--from", "198.51.100.9")
    assert refused["answer"].startswith("403: ") and rules(refused) == of_route, "what refuses it is among them"
    assert rules(instance.explain("http://web.example/")) == TIMEOUTS
    assert rules(instance.explain("http://away.example/")) == [], "no server is asked"


def test_a_table_for_people(instance: Instance) -> None:
    found = invoke("GET", "http://web.example/x", "--from", "192.0.2.9", "--master", str(instance.master))
    lines = found.stdout.splitlines()
    assert lines[0] == "route: 4: web.example; any path" and "server: 10.0.0.1:80" in lines
    assert "timeouts.connect   3 s       proxy.timeouts.connect" in map(str.strip, lines)
    assert any(line.startswith("> 10.0.0.1:80") and line.rstrip().endswith("it is picked by the policy") for line in lines)


@pytest.mark.parametrize(("arguments", "message"), [
    (("GET", "ftp://x/"), "is no URL"), (("GET", "x"), "is no URL"), (("GET", "http://x/ä"), "percent-encode"),
    (("GET", "http://x:99999/"), "Port"), (("G T", "http://x/"), "is no method"),
    (("GET", "http://x/", "-H", "a"), "is no field"),
    (("GET", "http://x/", "-H", "a: b\r\nc: d"), "is no field"), (("GET", "http://x/", "--from", "here"), "is no IP address"),
    (("GET", "http://x/", "--master", "1"), "no instance of the gunicorn master 1 runs")])
def test_what_is_wrong_is_told_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    found = invoke(*arguments)
    assert found.exit_code in (1, 2) and message in found.stderr and "Traceback" not in found.output
