"""What a configuration may say of filters."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.difference import differences
from prefork_lb.config.filter_rules import filters_of
from prefork_lb.config.load import load
from prefork_lb.config.masked import masked
from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published, encode_published
from prefork_lb.config.routes import answer_in_words
from prefork_lb.errors import ConfigError


def loaded(tmp_path: Path, pool: str = "", route: str = 'pool = "web"\n') -> Config:
    file = tmp_path / "a.toml"
    file.write_text(f'[pools.web]\nservers = ["127.0.0.1:1"]\n{pool}\n[[routes]]\n{route}\n')
    return load(file)


def test_a_filter_is_a_name_or_a_table_with_settings(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'filters = ["site:A"]', 'pool = "web"\nfilters = ["site:A", { use = "a.b:C", n = 1, x = ["y"], '
                    'f = 0.5, t = true, s = "z" }]')
    assert [(each.use, each.settings) for each in config.routes[0].filters] == [
        ("site:A", {}), ("a.b:C", {"n": 1, "x": ("y",), "f": 0.5, "t": True, "s": "z"})]
    assert [place for _, place in filters_of(config).values()] == ["routes[0].filters[0]", "routes[0].filters[1]"]
    assert decode_published(encode_published(config)) == (config, [])
    assert answer_in_words(config.routes[0]) == "pool web, filtered by site:A, a.b:C"


@pytest.mark.parametrize(("filters", "words"), [
    ('["site"]', 'filters[0]: \'site\' is no filter; expected "package.module:Class"'),
    ('["a b:C"]', "is no filter"),
    (f'["{"a" * 120}:C"]', "is no filter"),
    ('[{ header = "X" }]', "filters[0].use: missing"),
    ('[3]', "found 3, expected a table"),
    ('[{ use = 3 }]', "filters[0].use: found 3, expected a string"),
    ('[{ use = "a:B", x = { y = 1 } }]', "filters[0].settings.x: found"),
    ('"site:A"', "expected a list"),
])
@pytest.mark.parametrize("place", ["pool", "route"])
def test_bad_ones_are_named_with_their_place(tmp_path: Path, place: str, filters: str, words: str) -> None:
    line = f"filters = {filters}"
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, line if place == "pool" else "", 'pool = "web"\n' + (line if place == "route" else ""))
    problem, = caught.value.problems
    assert words in problem and ("routes[0].filters" if place == "route" else "pools.web.filters") in problem


def test_a_route_without_a_pool_has_no_filters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\].filters: has no meaning without pool"):
        loaded(tmp_path, "", 'respond = {}\nfilters = ["site:A"]')


def test_settings_may_be_secrets(tmp_path: Path) -> None:
    before, after = (loaded(tmp_path, f'filters = [{{ use = "site:A", secret = "{secret}" }}]') for secret in ("s1", "s2"))
    assert "s1" not in str(masked(before)) and "site:A" in str(masked(before))
    assert differences(before, after) == ["pools.web.filters[0].settings: changed"]


@pytest.mark.parametrize("route", ["split = { web = 1, other = 1 }", 'pool = "other"\nfailover = "web"'])
def test_a_pool_with_filters_serves_its_routes_alone(tmp_path: Path, route: str) -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\]: the pool web has filters"):
        loaded(tmp_path, 'filters = ["site:A"]\n[pools.other]\nservers = ["127.0.0.1:2"]', route)
