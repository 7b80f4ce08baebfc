"""From the filters of a configuration to those of a worker."""
from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from prefork_lb.clock import monotonic
from prefork_lb.config.load import load
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError
from prefork_lb.filters import Filter, Setup
from prefork_lb.net.dial import SocketDialer
from prefork_lb.proxy.attempt import AttemptSettings, Timeouts
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.filtering import FilteringEngine
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_response
from prefork_lb.wiring.filters import make_engine, make_filters
from prefork_lb.wiring.pools import obtain_needs
from prefork_lb.wiring.room import problems_at_reload, room_for
from prefork_lb.wiring.routes import make_router
from tests.unit.shared.conftest import Master

SETTINGS = AttemptSettings(Timeouts(1, 1, 1), HeadLimits(), b"lb", monotonic,
                           functools.partial(parse_response, limits=HeadLimits()), SocketDialer().dial)


class Counts(Filter):
    """For configurations of these tests."""

    def __init__(self, setup: Setup) -> None:
        self.memory = setup.memory
        self.step = setup.number("step", 1)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "site_counts", sys.modules[__name__])


def loaded(tmp_path: Path, *filters: str, of_pool: str = "") -> Config:
    (tmp_path / "a.toml").write_text(f'[pools.web]\nservers = ["127.0.0.1:1"]\nfilters = [{of_pool}]\n'
                                     f'[[routes]]\npool = "web"\nfilters = [{", ".join(filters)}]\n')
    return load(tmp_path / "a.toml")


def test_the_same_filter_is_one_object_and_other_settings_make_another(tmp_path: Path) -> None:
    config = loaded(tmp_path, '"site_counts:Counts"', '{ use = "site_counts:Counts", step = 2 }', of_pool='"site_counts:Counts"')
    assert [each.filter.step for each in make_filters(config, SETTINGS).values()] == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("filters", "words"), [
    ('"site_none:A"', r"a.toml: routes\[0\].filters\[0\]: filter 'site_none:A': no module named 'site_none'"),
    ('{ use = "site_counts:Counts", stop = 2 }', r"a.toml: routes\[0\].filters\[0\]: .*it has no setting 'stop'; it has step"),
])
def test_a_filter_that_cannot_be_had_is_told_with_its_place(tmp_path: Path, filters: str, words: str) -> None:
    config = loaded(tmp_path, filters)
    with pytest.raises(ConfigError, match=words):
        obtain_needs(config)
        make_filters(config, SETTINGS)


def test_workers_have_the_same_integers(tmp_path: Path, master: Master) -> None:
    config = loaded(tmp_path, '"site_counts:Counts"')
    segment = attach_or_create(master.pid, room_for(config, 1))
    memories = []
    for _ in range(2):
        filters = make_filters(config, SETTINGS)
        engine = make_engine(config, make_router(config), {}, SETTINGS, filters, Ledger(segment), None)
        assert isinstance(engine, FilteringEngine)
        memories += [each.memory for each in filters.values()]
    assert [memory.add(5) for memory in memories] == [1, 2]


def test_without_filters_the_engine_is_the_plain_one(tmp_path: Path, master: Master) -> None:
    config = loaded(tmp_path)
    segment = attach_or_create(master.pid, room_for(config, 1))
    assert segment.layout.filters == 0
    assert type(make_engine(config, make_router(config), {}, SETTINGS, {}, Ledger(segment), None)) is Engine


def test_a_reload_can_only_use_the_room_of_the_start(tmp_path: Path, master: Master) -> None:
    one = loaded(tmp_path, '"site_counts:Counts"')
    many = loaded(tmp_path, *(f'{{ use = "site_counts:Counts", step = {step} }}' for step in range(17)))
    with_room = attach_or_create(master.pid, room_for(one, 1))
    assert problems_at_reload(one, 1, with_room) == []
    assert problems_at_reload(many, 1, with_room) == [
        "room for 16 filters only, and there are 17; restart gunicorn to make more"]


def test_the_first_filter_needs_a_restart(tmp_path: Path, master: Master) -> None:
    without = attach_or_create(master.pid, room_for(loaded(tmp_path), 1))
    assert problems_at_reload(loaded(tmp_path, '"site_counts:Counts"'), 1, without) == [
        "no room for filters, since there was none at the start; restart gunicorn to make it"]
