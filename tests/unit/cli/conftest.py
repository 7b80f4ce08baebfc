"""Instances in real shared memory: as the tests of `shared` have them, and as commands see them."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest

from prefork_lb.cli import running
from prefork_lb.cli import servers as commands
from prefork_lb.shared.finding import DIRECTORY, visible_segments
from prefork_lb.shared.segment import Segment
from tests.unit.cli.instances import Instance, Time
from tests.unit.shared.conftest import master, new_master, segment  # noqa: F401


@pytest.fixture
def new_instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Instance]]:
    """Makes instances; the commands see these, and none that runs on the machine besides."""
    made: list[Instance] = []

    def mine() -> Iterator[Segment]:
        names = {instance.segment.name for instance in made}
        return (found for found in visible_segments() if found.name in names)

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


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=made.monotonic, sleep=made.sleep))
    return made
