"""The examples of docs/filters.md: they load, and do what the page says."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefork_lb.config.load import load
from prefork_lb.filters import Answer, Fields, Filter, HTTPAnswer, Memory, Request, Response, Setup
from prefork_lb.filters.filter import SettingValue
from prefork_lb.filters.loading import make_filter
from tests.unit.filters.asked import NoHTTP

PAGE = (Path(__file__).parents[3] / "docs/filters.md").read_text()
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "site_lb", raising=False)
    (tmp_path / "site_lb.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def made(name: str, http: object = None, **settings: SettingValue) -> Filter:
    return make_filter(f"site_lb:{name}", Setup(settings, Memory(), http or NoHTTP()))  # type: ignore[arg-type]


def request(*fields: tuple[bytes, bytes]) -> Request:
    return Request(b"GET", b"/", b"h", fields, "192.0.2.1", b"http", "web", ["web", "big"])


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_good_configuration_with_filters_that_can_be_made(tmp_path: Path, number: int) -> None:
    text = EXAMPLES[number] + ("" if "[[routes]]" in EXAMPLES[number] else '[[routes]]\npool = "web"\n')
    (tmp_path / "lb.toml").write_text(text)
    config = load(tmp_path / "lb.toml")
    filters = [each for section in (*config.routes, *config.pools.values()) for each in section.filters]
    assert filters
    for each in filters:
        make_filter(each.use, Setup(each.settings, Memory(), NoHTTP()))


def test_a_tenant_chooses_key_and_pool() -> None:
    tenant = made("RequireTenant", big=("acme",))
    nobody, small, big = request(), request((b"X-Tenant", b"a")), request((b"x-tenant", b"acme"))
    assert tenant.on_request(nobody) == Answer(401, "X-Tenant is missing\n")
    assert (tenant.on_request(small), small.pool, small.key) == (None, "web", "a")
    assert (tenant.on_request(big), big.pool, big.key) == (None, "big", "acme")
    response = Response(200, [], "a:1")
    tenant.on_response(small, response)
    assert response.fields.get("Vary") == "X-Tenant"


def test_no_more_than_so_many() -> None:
    most = made("AtMost", most=2)
    assert [most.on_request(request()) is None for _ in range(3)] == [True, True, False]


def test_a_license_is_asked_for() -> None:
    asked: list[object] = []

    def get(*arguments: object, timeout_s: float) -> HTTPAnswer:
        asked.append(arguments)
        return HTTPAnswer(204 if len(asked) == 1 else 404, Fields([], False), b"")

    licensed = made("Licensed", SimpleNamespace(get=get), url="http://a/")
    assert [licensed.on_request(request((b"X-Key", b"k"))) is None for _ in range(2)] == [True, False]
    assert asked[0] == ("http://a/", {"X-Key": "k"})
