"""An instance elsewhere: the commands see what they see on its own host."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from prefork_lb.cli.local import LocalInstance
from prefork_lb.cli.main import main
from prefork_lb.cli.remote import RemoteInstance, read_token
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from tests.unit.admin.interface import CONFIG, OPERATOR, READER, Interface
from tests.unit.cli.interfaces import served

Served = tuple[str, Interface]


@pytest.fixture
def there(segment: Segment) -> Iterator[Served]:
    with served(segment) as found:
        yield found


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_both_ways_to_an_instance_tell_the_same(there: Served) -> None:
    url, interface = there
    here, remote = LocalInstance(interface.segment), RemoteInstance(f"{url}/", "")
    assert [pool["name"] for pool in remote.document()["pools"]] == [pool["name"] for pool in here.document()["pools"]]
    with interface.ledger.locked():
        record_event(interface.segment, EventKind.AUDIT, "something", "web", "127.0.0.1:8001", "ann")
    assert remote.events(0) == here.events(0) != []
    assert remote.events(here.events(0)[-1].seq) == []
    assert remote.configuration() == here.configuration()


def test_events_of_an_instance_that_was_restarted_are_all_new(there: Served) -> None:
    url, interface = there
    with interface.ledger.locked():
        record_event(interface.segment, EventKind.AUDIT, "something")
    assert [event.seq for event in RemoteInstance(url, "").events(1000)] == [1]


def test_a_command_shows_an_instance_elsewhere(there: Served) -> None:
    url, interface = there
    with interface.ledger.locked():
        record_event(interface.segment, EventKind.AUDIT, "something")
    result = invoke("status", "--url", url)
    assert result.exit_code == 0 and "https://127.0.0.1:8003" in result.stdout
    found = json.loads(invoke("status", "--url", url, "--json").stdout)["instances"]
    assert [len(pool["servers"]) for pool in found[0]["pools"]] == [2, 2]
    lines = invoke("events", "--url", url, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["audit"]


def test_a_token_is_needed_where_there_are_tokens(segment: Segment, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"reader {READER}\noperator {OPERATOR} ann\n")
    with served(segment, str(file)) as (url, _):
        without = invoke("status", "--url", url)
        assert without.exit_code == 1 and "a token is needed" in without.stderr and without.stdout == ""
        assert invoke("status", "--url", url, "--token-file", str(file)).exit_code == 0


@pytest.mark.parametrize(("text", "token"), [
    ("secret\n", "secret"), ("# mine\n\n  operator secret  \n", "secret"), ("reader one\noperator two ann\n", "two"),
    ("reader one\n", "one"),
])
def test_the_token_is_read_as_the_instances_own_file_has_it(tmp_path: Path, text: str, token: str) -> None:
    (tmp_path / "token").write_text(text)
    assert read_token(str(tmp_path / "token")) == token


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "king secret\n"])
def test_a_file_without_a_token_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with pytest.raises(click.ClickException, match="token: (no token in it|cannot be read: No such file)"):
        read_token(str(tmp_path / "token"))


def test_what_is_no_administration_interface_is_told_in_words(there: Served) -> None:
    url, _ = there
    for where, words in ((f"{url}/nowhere", "The requested URL was not found"),
                         ("http://127.0.0.1:1", "cannot be reached: .*refused"),
                         ("127.0.0.1:1", "cannot be reached"), ("http:", "cannot be reached"),
                         ("gopher://127.0.0.1", "cannot be reached")):
        with pytest.raises(click.ClickException, match=f"{where}:? ?({words})"):
            RemoteInstance(where, "").document()


def test_options_that_contradict_each_other_are_refused(there: Served) -> None:
    assert "give one of them" in invoke("events", "--url", there[0], "--master", "1").stderr
    assert "--token-file goes with --url" in invoke("status", "--token-file", "x").stderr


def test_a_file_is_compared_with_the_configuration_elsewhere(there: Served, tmp_path: Path) -> None:
    url, file = there[0], tmp_path / "lb.toml"
    routes = '[[routes]]\nhosts = ["split.test"]\nsplit = { web = 95, api = 5 }\n'
    routes += '[[routes]]\npool = "web"\n[[routes]]\npool = "api"\nhosts = ["a.test"]\n'
    pools = "".join(f"[pools.{name}]\nservers = {json.dumps([each['address'] for each in pool['servers']])}\n"
                    for name, pool in CONFIG["pools"].items())
    file.write_text(pools + routes)
    result = invoke("config", "diff", str(file), "--url", url)
    assert (result.exit_code, result.stdout) == (1, "routes[2]: added\n")
    result = invoke("config", "diff", "--url", url)
    assert result.exit_code == 2 and "on another host" in result.stderr


def test_servers_are_steered_from_elsewhere(there: Served) -> None:
    url, interface = there
    states, slot = States(interface.segment), interface.slots["web"][0]
    at = ("--url", url)

    def said(*arguments: str) -> str:
        result = invoke(*arguments, *at)
        assert (result.exit_code, result.stderr) == (0, ""), result.stderr
        return result.stdout

    assert said("drain", "127.0.0.1:8001", "--wait") == (
        "127.0.0.1:8001 (pool web): drain, 0 in flight\n127.0.0.1:8001: nothing in flight any more\n")
    assert states.admin[slot] == Admin.DRAIN
    assert said("weight", "127.0.0.1:8001", "7") == "127.0.0.1:8001 (pool web): weight 7\n" and states.weight_set[slot] == 7
    assert said("limit", "127.0.0.1:8001", "9") == "127.0.0.1:8001 (pool web): limit 9\n" and states.limit_set(slot) == 9
    assert said("limit", "127.0.0.1:8001", "none") and states.limit_set(slot) == 0
    assert said("limit", "127.0.0.1:8001", "default") and states.limit_set(slot) is None
    assert said("ready", "127.0.0.1:8001") == "127.0.0.1:8001 (pool web): ready, 0 in flight\n" and not states.admin[slot]
    assert said("maintenance", "unix:/run/api.sock") and said("ready", "https://127.0.0.1:8003")
    assert said("add", "127.0.0.1:9", "--pool", "web", "--weight", "2") == "127.0.0.1:9 (pool web): added\n"
    assert ("web", "127.0.0.1:9") in RemoteInstance(url, "").servers()
    assert said("remove", "127.0.0.1:9") == "127.0.0.1:9 (pool web): removed, 0 in flight\n"
    for arguments, problem in ((("drain", "127.0.0.1:9"), "no server '127.0.0.1:9'; there are "),
                               (("add", "127.0.0.1:8001", "--pool", "web"), "127.0.0.1:8001"),
                               (("add", "127.0.0.1:9", "--pool", "none"), "none")):
        result = invoke(*arguments, *at)
        assert result.exit_code == 1 and problem in result.stderr and result.stdout == ""
    assert {event.who for event in RemoteInstance(url, "").events(0) if event.kind in ("admin", "weight")} == {"local"}


def test_what_is_in_flight_elsewhere_is_waited_for(there: Served) -> None:
    url, interface = there
    slot = interface.slots["web"][0]
    with interface.ledger.locked():
        interface.ledger.claim(slot)
    interface.publisher.look()
    assert "1 still in flight after 0 s" in invoke("drain", "127.0.0.1:8001", "--wait", "--timeout", "0", "--url", url).stderr
    interface.ledger.release(slot)
    interface.publisher.look()
    assert invoke("drain", "127.0.0.1:8001", "--wait", "--timeout", "0", "--url", url).exit_code == 0


def test_sessions_elsewhere_are_waited_for(there: Served) -> None:
    url, interface = there
    publish(interface.segment, interface.ledger, json.dumps(
        {"pools": {"web": {"servers": CONFIG["pools"]["web"]["servers"], "sticky": {}}}}).encode())
    drain = ("drain", "127.0.0.1:8001", "--wait", "--timeout", "0", "--url", url)
    assert "sessions that may come back" in invoke(*drain).stderr
    States(interface.segment).drained[interface.slots["web"][0]] -= 60_000
    interface.publisher.look()
    ended = invoke(*drain)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (
        0, "127.0.0.1:8001: nothing in flight any more, and no sessions are left")
