"""Which instance the commands for servers mean."""
from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from prefork_lb.shared import finding
from prefork_lb.shared import layout as at
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.states import Admin
from tests.unit.cli.instances import ONE, TWO, UNIX, Instance, refused, said
from tests.unit.shared.processes import Master

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
        attach_or_create(successor.pid, Layout(4, 8, 8), instance.pid)
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
