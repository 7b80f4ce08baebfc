"""The state file: what operators have set and outlives a restart."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import start_time
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import set_weights, write_set_weights
from prefork_lb.shared.state_file import restore
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, register
from prefork_lb.shared.view import view
from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import wait_until
from tests.unit.shared.processes import Child, running
from tests.unit.shared.saving import ADDRESSES, Saving, entries


def test_what_was_set_is_there_again_in_another_instance(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, new_segment: Segment
) -> None:
    found, file = States(segment), tmp_path / "state.json"
    found.set_admin(slots[0], Admin.DRAIN)
    found.set_weight(slots[1], 7)
    found.set_limit(slots[1], 0)
    Saving(file, segment).look()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.json.lock"]
    other = Ledger(new_segment)
    theirs = register(new_segment, other, entries("api", "web"))["web"].slots
    again = States(new_segment)
    assert restore(file, 60, new_segment, other, again) == f"{file}: 2 of 2 states taken over"
    assert [again.admin[slot] for slot in theirs] == [Admin.DRAIN, Admin.READY]
    assert [again.weight_set[slot] for slot in theirs] == [0, 7]
    assert [again.limit_set(slot) for slot in theirs] == [None, 0]
    again.set_admin(theirs[0], Admin.READY)
    assert restore(file, 60, new_segment, other, again) == "" and again.admin[theirs[0]] == Admin.READY, "once an instance"


def test_added_servers_are_there_again_with_their_rules_and_in_their_order(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, new_segment: Segment
) -> None:
    found, file = States(segment), tmp_path / "state.json"
    steering = Steering(segment, ledger, found)
    for address, weight, backup in (("10.0.0.9:80", 3, False), ("10.0.0.3:80", 1, True)):
        steering.add_server("web", address, weight, 7, backup, who="me")
    steering.set_admin("web", "10.0.0.9:80", Admin.DRAIN, "me")
    steering.remove_server("web", ADDRESSES[0], who="me")
    Saving(file, segment).look()
    other, again = Ledger(new_segment), States(new_segment)
    register(new_segment, other, entries("web"))
    assert restore(file, 60, new_segment, other, again) == f"{file}: 2 of 2 states taken over"
    shown = [(each.address, each.weight, each.max_connections, each.backup, each.state, each.origin)
             for each in view(new_segment).servers]
    assert shown == [(ADDRESSES[0], 1, 0, False, "ready", "configuration"), (ADDRESSES[1], 1, 0, False, "ready", "configuration"),
                     ("10.0.0.9:80", 3, 7, False, "drain", "runtime"), ("10.0.0.3:80", 1, 7, True, "ready", "runtime")]


def test_the_servers_that_discovery_has_found_are_there_again_without_it(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, new_segment: Segment
) -> None:
    found, file = States(segment), tmp_path / "state.json"
    steering = Steering(segment, ledger, found)
    steering.add_server("web", "10.0.0.7:80", who="list", source=AddedBy.DISCOVERY)
    steering.add_server("web", "10.0.0.8:80", who="list", source=AddedBy.DISCOVERY)
    steering.add_server("web", "10.0.0.9:80", who="scaling", source=AddedBy.SCALING)
    steering.set_weight("web", "10.0.0.7:80", 5, "me")
    steering.let_go("web", "10.0.0.8:80")
    Saving(file, segment).look()
    other = Ledger(new_segment)
    register(new_segment, other, entries("web"))
    restore(file, 60, new_segment, other, States(new_segment))
    assert [(each.address, each.weight, each.source) for each in view(new_segment).servers if each.origin == "runtime"] == [
        ("10.0.0.7:80", 5, "discovery")]


def test_weights_of_splits_are_there_again_for_routes_that_there_are(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, new_segment: Segment
) -> None:
    file, saving = tmp_path / "state.json", Saving(tmp_path / "state.json", segment)
    saving.look()
    with ledger.locked():
        write_set_weights(segment, 7, {"canary": 20})
        write_set_weights(segment, 1 << 62, {"canary": 0})
        write_set_weights(segment, 9, {"gone": 3})
    saving.look()  # a change of weights alone makes it write
    other = Ledger(new_segment)
    register(new_segment, other, entries("web"))
    told = restore(file, 60, new_segment, other, States(new_segment), [7, 1 << 62, 8])
    assert told == f"{file}: 2 of 3 splits with weights that were set taken over"
    assert set_weights(new_segment) == {7: {"canary": 20}, 1 << 62: {"canary": 0}}


def test_an_added_server_of_a_pool_that_is_no_more_is_told_and_left_out(
    segment: Segment, ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(segment, ledger, entries("web"))
    file = tmp_path / "state.json"
    file.write_text(told(pools={"gone": {"10.0.0.9:80": {"added": {"weight": 2}}}, "web": {"10.0.0.8:80": {"added": {}}}}))
    assert restore(file, 60, segment, ledger, States(segment)) == f"{file}: 1 of 2 states taken over"
    assert "the server 10.0.0.9:80 is not added again: there is no pool gone" in caplog.text
    assert "10.0.0.8:80" in {each.address for each in view(segment).servers}


def told(**more: object) -> str:
    return json.dumps({"version": 1, "written": int(time.time()), "pools": {"web": {ADDRESSES[0]: {"state": "drain"}}}} | more)


def one(**entry: object) -> dict[str, object]:
    return {"pools": {"web": {ADDRESSES[0]: entry}}}


NOT_ONE = "not a state file"
USELESS: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (str, NOT_ONE), "list": (lambda: "[]", NOT_ONE), "nothing in it": (lambda: "{}", NOT_ONE),
    "cut": (lambda: told()[:40], NOT_ONE), "not text": (lambda: "\udcff", NOT_ONE), "deep": (lambda: "[" * 100_000, NOT_ONE),
    "other version": (lambda: told(version=2), NOT_ONE), "pools are a list": (lambda: told(pools=[]), NOT_ONE),
    "unknown state": (lambda: told(**one(state="asleep")), NOT_ONE), "no weight": (lambda: told(**one(weight="heavy")), NOT_ONE),
    "too much weight": (lambda: told(**one(weight=1001)), NOT_ONE), "far too much": (lambda: told(**one(weight=10**30)), NOT_ONE),
    "less than none": (lambda: told(**one(weight=-1)), NOT_ONE), "endless": (lambda: told(**one(weight=float("inf"))), NOT_ONE),
    "old": (lambda: told(written=int(time.time()) - 61), "not believed"),
    "of the future": (lambda: told(written=int(time.time()) + 1000), "not believed"),
    "at no time": (lambda: told(written=10**400), NOT_ONE),
    "no pools": (lambda: told(pools={}), ""),
    "unknown server": (lambda: told(pools={"web": {"10.9.9.9:80": {"state": "drain"}}}), "0 of 1 states taken over"),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_file_of_no_use_leaves_every_server_ready(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, name: str
) -> None:
    content, message = USELESS[name]
    file = tmp_path / "state.json"
    file.write_bytes(content().encode(errors="surrogateescape"))
    found = restore(file, 60, segment, ledger, States(segment))
    assert message in found and bool(found) == bool(message)
    assert [States(segment).admin[slot] for slot in slots] == [Admin.READY] * 2
    assert not any(States(segment).weight_set)


def test_without_a_file_there_is_nothing_to_tell(segment: Segment, ledger: Ledger, tmp_path: Path) -> None:
    assert restore(tmp_path / "none.json", 60, segment, ledger, States(segment)) == ""


def test_a_link_in_place_of_the_fresh_file_is_not_followed(segment: Segment, slots: list[int], tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "state.json"
    victim.write_text("mine")
    (tmp_path / ".state.json.fresh").symlink_to(victim)
    Saving(file, segment).look()
    assert victim.read_text() == "mine" and json.loads(file.read_text())["pools"] == {}


def test_a_file_that_cannot_be_read_is_told(segment: Segment, ledger: Ledger, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in restore(tmp_path, 60, segment, ledger, States(segment))


def test_a_file_that_no_descriptor_is_left_for_is_tried_again(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To go on without it would make every server ready, and the next write would replace the file."""
    file = tmp_path / "state.json"
    file.write_text(told())
    naps: list[float] = []
    with contextlib.ExitStack() as shortage:
        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                shortage.close()

        monkeypatch.setattr(time, "sleep", nap)
        shortage.enter_context(no_descriptor_left())
        assert restore(file, 60, segment, ledger, States(segment)) == f"{file}: 1 of 1 states taken over"
    assert len(naps) == 3 and States(segment).admin[slots[0]] == Admin.DRAIN


def test_a_shortage_that_does_not_pass_ends_no_start(
    segment: Segment, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    file.write_text(told())
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with no_descriptor_left():
        assert "cannot be read: Too many open files; every server is ready" in restore(file, 60, segment, ledger, States(segment))


def test_a_worker_that_is_killed_while_it_reads_leaves_the_file_to_the_next_one(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "state.json"
    file.write_text(told())

    def killed() -> None:
        states = States(segment)
        states.set_weight = lambda slot, weight: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        restore(file, 60, segment, Ledger(segment), states)

    with running(killed) as [child]:
        assert child.wait() == -signal.SIGKILL
    assert restore(file, 60, segment, ledger, States(segment)) == f"{file}: 1 of 1 states taken over"
    assert States(segment).admin[slots[0]] == Admin.DRAIN


@pytest.mark.parametrize("has_writer", [False, True])
def test_a_fifo_is_not_waited_for(segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, has_writer: bool) -> None:
    file = tmp_path / "state.json"
    os.mkfifo(file)
    writer = os.open(file, os.O_RDWR) if has_writer else -1
    told: list[str] = []
    reads = threading.Thread(target=lambda: told.append(restore(file, 60, segment, ledger, States(segment))), daemon=True)
    reads.start()
    reads.join(10)
    assert told == [f"{file}: cannot be read: it is not a regular file; every server is ready"]
    if has_writer:
        os.close(writer)


def test_requests_do_not_wait_for_a_disk_that_hangs_in_the_read(
    segment: Segment, ledger: Ledger, slots: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a worker whose read ends after another one has taken the file over takes over nothing."""
    file = tmp_path / "state.json"
    file.write_text(told())
    reads, goes_on = threading.Event(), threading.Event()
    decode = msgspec.json.decode

    def hang(*given: Any, **more: Any) -> object:
        reads.set()
        assert goes_on.wait(10)
        return decode(*given, **more)

    monkeypatch.setattr(msgspec.json, "decode", hang)
    said: list[str] = []
    slow = threading.Thread(target=lambda: said.append(restore(file, 60, segment, ledger, States(segment))))
    slow.start()
    assert reads.wait(10)
    free = Child(lambda: Ledger(segment, takes_row=False))
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(slow.join)
        clean_up.callback(goes_on.set)
        clean_up.callback(free.kill)
        wait_until(lambda: not start_time(free.pid), "another process has had the lock", 5)
        segment.cells[at.H_RESTORED] = 1
    assert free.wait() == 0 and said == [""] and not any(States(segment).admin)
