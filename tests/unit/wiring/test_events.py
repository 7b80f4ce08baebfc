"""What a worker that starts tells of the configuration that it puts into force."""
from __future__ import annotations

import os

import msgspec
import pytest

from prefork_lb.shared.events import EventKind, recent
from prefork_lb.wiring import membership
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.room import room_for
from tests.unit.shared.processes import Master
from tests.unit.wiring.test_room import config, master  # noqa: F401


def test_a_worker_that_serves_is_told_after_its_configuration(master: Master) -> None:  # noqa: F811
    before = config(2)
    member = Membership(master.pid, 0, room_for(before, 2), one_thread=True)
    assert recent(member.segment) == []
    member.put_into_force(before)
    found = [(event.kind, event.who) for event in recent(member.segment)]
    assert found == [("reload", ""), ("worker-started", f"worker {os.getpid()}")]


def told(member: Membership) -> list[str]:
    return [event.text for event in recent(member.segment) if event.kind == EventKind.RELOAD]


def test_a_configuration_is_told_once_for_all_workers_with_what_changed(master: Master) -> None:  # noqa: F811
    before = config(2)
    first, second = (Membership(master.pid, 0, room_for(before, 2), one_thread=True) for _ in range(2))
    first.put_into_force(before)
    second.put_into_force(before)
    assert told(first) == ["prefork_lb.toml is in force: configuration of the start"]
    after = msgspec.structs.replace(config(3), source="other.toml")
    second.put_into_force(after)
    first.put_into_force(after)
    assert told(first)[1:] == ["other.toml is in force: pool p0: server 10.0.2.7:8080: added"]


def test_a_worker_that_finds_its_configuration_in_force_does_not_decode_it(
        master: Master, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    first, second = (Membership(master.pid, 0, room_for(config(2), 2), one_thread=True) for _ in range(2))
    first.put_into_force(config(2))
    decoded: list[object] = []
    monkeypatch.setattr(membership, "configuration_of", decoded.append)
    second.put_into_force(config(2))
    assert not decoded
    second.put_into_force(config(3))
    assert len(decoded) == 1


def test_a_refused_one_is_told_once_for_all_workers(master: Master) -> None:  # noqa: F811
    member = Membership(master.pid, 0, room_for(config(2), 2), one_thread=True)
    for _ in range(3):
        member.tell_of_refusal("no room")
    assert told(member) == ["the configuration before stays in force: no room"]
