"""From a name and settings to a filter."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prefork_lb.filters import Filter, Memory, Setup
from prefork_lb.filters.filter import SettingValue
from prefork_lb.filters.loading import make_filter
from tests.unit.filters.asked import NoHTTP

MODULE = """
from prefork_lb.filters import Filter
class Good(Filter):
    def __init__(self, setup):
        self.told = setup.text("header", "X-A"), setup.number("limit", 3), setup.texts("names", ["a"])
class Plain(Filter): pass
class Needs(Filter):
    def __init__(self, setup):
        setup.text("header")
class Raises(Filter):
    def __init__(self, setup):
        raise OSError("no such file")
class Other: pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("site_lb", "site_bad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "site_lb.py").write_text(MODULE)
    (tmp_path / "site_bad.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


def made(name: str, **settings: SettingValue) -> Filter:
    return make_filter(name, Setup(settings, Memory(), NoHTTP()))


def test_a_filter_is_made_with_its_settings() -> None:
    assert vars(made("site_lb:Good")) == {"told": ("X-A", 3, ("a",))}
    assert vars(made("site_lb:Good", header="X", limit=0.5, names=("b", "c"))) == {"told": ("X", 0.5, ("b", "c"))}
    assert isinstance(made("site_lb:Plain"), Filter)


@pytest.mark.parametrize(("name", "settings", "words"), [
    ("no_such_module:A", {}, "no module named 'no_such_module'; is it on PYTHONPATH?"),
    ("site_bad:A", {}, "site_bad cannot be imported: ZeroDivisionError.*site_bad.py:1"),
    ("site_lb:None", {}, "site_lb has no class None that is a prefork_lb.filters.Filter"),
    ("site_lb:Other", {}, "has no class Other that is"),
    ("site_lb:Raises", {}, "cannot be made: OSError: no such file .*site_lb.py:12"),
    ("site_lb:Needs", {}, "the setting header is missing"),
    ("site_lb:Good", {"header": 3}, "header = 3: expected a string"),
    ("site_lb:Good", {"limit": True}, "limit = True: expected a number"),
    ("site_lb:Good", {"names": "a"}, "names = 'a': expected a list"),
    ("site_lb:Good", {"haeder": "X"}, "it has no setting 'haeder'; it has header, limit, names"),
    ("site_lb:Plain", {"x": 1}, "it has no setting 'x'; it has none"),
])
def test_what_is_wrong_is_named_with_the_place(name: str, settings: dict[str, SettingValue], words: str) -> None:
    with pytest.raises(ValueError, match=f"filter '{name}': .*{words}"):
        made(name, **settings)
