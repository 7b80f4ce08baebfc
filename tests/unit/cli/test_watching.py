"""`events`, `config diff` and `reload`: what has changed, what would, and whether it took."""
from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from prefork_lb.cli import events as events_command
from prefork_lb.cli import reload as reload_command
from prefork_lb.cli import running
from prefork_lb.cli import status as status_command
from prefork_lb.cli.instances import InstanceChoice
from prefork_lb.cli.main import main
from prefork_lb.config.load import load
from prefork_lb.config.published import encode_published
from prefork_lb.shared.events import Event, EventKind, record_event
from prefork_lb.shared.finding import visible_segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.wiring.membership import REFUSED

TEXT = '[pools.web]\nservers = ["127.0.0.1:8001"]\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture(autouse=True)
def mine(segment: Segment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Segment:
    """The one instance that the commands see. Its configuration is in a file of the folder in which its master, and this
    process, are."""
    monkeypatch.setattr(running, "visible_segments",
                        lambda: (found for found in visible_segments() if found.name == segment.name))
    monkeypatch.chdir(f"/proc/{segment.masters()[-1]}/cwd")
    file = tmp_path / "lb.toml"
    file.write_text(TEXT)
    publish(segment, Ledger(segment), encode_published(load(str(file))))
    return segment


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lb.toml"


def tell(segment: Segment, text: str, who: str = "") -> None:
    with Ledger(segment, takes_row=False).locked():
        record_event(segment, EventKind.ADMIN, text, "web", "127.0.0.1:8001", who)


# -- events --------------------------------------------------------------------------------------------------------------


def test_events_are_lines_for_people_and_for_programs(mine: Segment) -> None:
    tell(mine, "ready -> drain", "ann")
    shown = invoke("events").stdout.splitlines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  admin               web 127.0.0.1:8001: ready -> drain  \(ann\)",
                        shown[0]) and len(shown) == 1
    found = [json.loads(line) for line in invoke("events", "--json").stdout.splitlines()]
    assert found[0].items() >= {"kind": "admin", "pool": "web", "server": "127.0.0.1:8001", "text": "ready -> drain",
                                "who": "ann", "seq": 1}.items()


def test_following_shows_each_event_once_until_ctrl_c(mine: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile = iter([lambda: tell(mine, "one"), lambda: None, lambda: [tell(mine, "two"), tell(mine, "three")]])

    def sleep(seconds: float) -> None:
        step = next(meanwhile, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(events_command, "time", SimpleNamespace(sleep=sleep, strftime=lambda *_: "", localtime=lambda _: None))
    result = invoke("events", "--follow")
    assert result.exit_code == 0
    assert [line.rpartition(" ")[2] for line in result.stdout.splitlines()] == ["one", "two", "three"]


# -- config diff ---------------------------------------------------------------------------------------------------------


def test_a_file_is_compared_with_what_is_in_force(file: Path, tmp_path: Path) -> None:
    assert (invoke("config", "diff").exit_code, invoke("config", "diff").stdout) == (0, f"{file}: no difference\n")
    file.write_text(TEXT.replace("8001", "8002"))
    for arguments in ((), (str(file),)):
        result = invoke("config", "diff", *arguments)
        assert (result.exit_code, result.stdout) == (
            1, "pool web: server 127.0.0.1:8001: removed\npool web: server 127.0.0.1:8002: added\n")


def test_what_cannot_be_compared_is_trouble(file: Path, mine: Segment) -> None:
    file.write_text("bad")
    for arguments in ((), ("none.toml",), ("--master", "1")):
        result = invoke("config", "diff", *arguments)
        assert result.exit_code == 2 and result.stdout == "" and result.stderr.startswith("Error: ")


# -- reload --------------------------------------------------------------------------------------------------------------


class Fake:
    """An instance whose workers are replaced, one step at each look, once it was told to reload."""

    name = "fake"

    def __init__(self, *steps: list[int], told: str = "", problem: str = "", started: Sequence[int] = range(2, 9),
                 silent: int = 0) -> None:
        self.steps, self.told, self.problem = list(steps), told, problem
        self.reloaded, self.started, self.silent = False, started, silent
        self.forgets, self.shown = False, 0

    def document(self) -> dict[str, Any]:
        if self.reloaded and self.silent:
            self.silent -= 1
            raise click.ClickException("cannot be reached")
        if self.reloaded and len(self.steps) > 1:
            del self.steps[0]
        return {"workers": [{"pid": abs(pid), "lingers_s": 1 if pid < 0 else 0} for pid in self.steps[0]]}

    def events(self, after: int) -> list[Event]:
        found = [Event(1, 0.0, "reload", "", "", "the last one", ""), Event(2, 0.0, "worker-started", "", "", "", "worker 1")]
        if self.reloaded and self.told:
            found.append(Event(3, 0.0, "reload", "", "", self.told, ""))
        if self.reloaded:
            found += [Event(3 + pid, 0.0, "worker-started", "", "", "", f"worker {pid}") for pid in self.started]
        if self.reloaded and self.forgets:  # every event is known at one look only
            found, self.shown = [event for event in found if event.seq > self.shown], found[-1].seq
        return [event for event in found if event.seq > after]

    def reload(self) -> None:
        if self.problem:
            raise click.ClickException(self.problem)
        self.reloaded = True


@pytest.fixture
def reload(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fake], Result]]:
    now = [0.0]
    monkeypatch.setattr(reload_command, "time", SimpleNamespace(
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds), monotonic=lambda: now[0]))

    def run(fake: Fake, *options: str) -> Result:
        monkeypatch.setattr(InstanceChoice, "open", lambda self: fake)
        return invoke("reload", "--timeout", "5", *options)

    yield run


def test_a_reload_waits_for_new_workers_and_tells_what_changed(reload: Callable[[Fake], Result]) -> None:
    fake = Fake([1, 2], [1, 2], [1, 2, 3, 4], [-1, 2, 3, 4], [-1, 3, 4], told="lb.toml is in force: policy changed")
    result = reload(fake)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "lb.toml is in force: policy changed\nfake: 2 new workers after 0.3 s\n" and len(fake.steps) == 1


def test_an_event_that_the_instance_forgets_meanwhile_is_remembered(reload: Callable[[Fake], Result]) -> None:
    fake = Fake([1], [1], [1, 2], [2], told="lb.toml is in force: many servers")
    fake.forgets = True
    assert reload(fake).stdout == "lb.toml is in force: many servers\nfake: 1 new worker after 0.2 s\n"


def test_a_reload_that_changes_nothing_says_so(reload: Callable[[Fake], Result]) -> None:
    assert reload(Fake([1], [2])).stdout == "the configuration says the same as before\nfake: 1 new worker after 0.0 s\n"


def test_a_file_with_problems_changes_nothing(reload: Callable[[Fake], Result]) -> None:
    result = reload(Fake([1], [2], problem="lb.toml:1: bad"))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: lb.toml:1: bad\n")


def test_a_configuration_that_is_not_taken_has_an_exit_code_of_its_own(reload: Callable[[Fake], Result]) -> None:
    result = reload(Fake([1], [2], told=f"{REFUSED}no room"))
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", f"fake: {REFUSED}no room\n")


@pytest.mark.parametrize(("steps", "words"), [
    (([1, 2], [2, 3]), "1 of 2 workers of before still serve"), (([1], []), "the new workers have not begun"),
    (([1], [20]), "the new workers have not begun")])
def test_workers_that_stay_are_told_in_time(reload: Callable[[Fake], Result], steps: Any, words: str) -> None:
    result = reload(Fake(*steps))
    assert result.exit_code == 1 and result.stderr == f"Error: fake: after 5 s {words}\n"


def test_an_interface_that_restarts_by_the_reload_is_waited_for(reload: Callable[..., Result]) -> None:
    at = ("--url", "http://127.0.0.1:9900")
    assert reload(Fake([1], [2], silent=20), *at).stdout.endswith("fake: 1 new worker after 2.0 s\n")
    for fake, options in ((Fake([1], [2], silent=999), at), (Fake([1], [2], silent=1), ())):
        result = reload(fake, *options)
        assert (result.exit_code, result.stderr) == (1, "Error: cannot be reached\n")


def test_status_is_shown_again_and_again_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, mine: Segment) -> None:
    register(mine, Ledger(mine, takes_row=False), [PoolEntry("web", [ServerEntry("127.0.0.1:8001", 1, 0, False)])])
    for options in ((), ("--json",)):
        naps = iter(range(2))

        def sleep(seconds: float, left: Iterator[int] = naps) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(status_command, "time", SimpleNamespace(sleep=sleep))
        result = invoke("status", "--watch", *options)
        assert result.exit_code == 0
        if options:
            assert [len(json.loads(line)["instances"]) for line in result.stdout.splitlines()] == [1, 1, 1]
        else:
            frames = result.stdout.split("gunicorn master")[1:]
            assert ["rate" in frame for frame in frames] == [False, True, True]  # one look has no rates


@pytest.mark.parametrize("text", ["bad", TEXT + "workers = 3\n"])
def test_the_file_is_checked_before_the_master_is_told(file: Path, mine: Segment, text: str) -> None:
    """The master of these tests would die of SIGHUP."""
    file.write_text(text)
    result = invoke("reload")
    assert result.exit_code == 1 and f"{file}:" in result.stderr and mine.masters()


def test_who_has_reloaded_is_recorded(mine: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: signals.append(call))
    monkeypatch.setenv("SUDO_USER", "ann")
    [master] = mine.masters()
    assert invoke("reload", "--timeout", "0").exit_code == 1  # nobody replaces this worker
    assert [pid for pid, _ in signals] == [master]
    newest = dataclasses.asdict(InstanceChoice(master, None, None).open().events(0)[-1])
    assert (newest["kind"], newest["text"], newest["who"]) == ("audit", "reload", "ann")
