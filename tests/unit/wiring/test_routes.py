"""Routes as a worker makes them from a configuration."""
from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from prefork_lb.config import current
from prefork_lb.config.routes import RouteConfig
from prefork_lb.errors import OwnAnswer
from prefork_lb.routing.match import Router
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.routes import make_router
from tests.unit.wiring.test_room import config


def answer_of(router: Router) -> OwnAnswer:
    head, peer = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", HeadLimits()), ClientInfo("192.0.2.1", b"http", 80, False)
    goal = destination(head)
    route, target = router.find(goal, head, peer)
    assert route.actions is not None and route.actions.answer is not None
    return route.actions.answer(router.facts(route, goal, target, head, peer))


def test_a_worker_answers_with_the_file_that_its_master_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker that replaces another one when the file is gone could not start, and would end the instance."""
    page = tmp_path / "page.html"
    page.write_text("down for an hour")
    routes = f'[[routes]]\nrespond = {{ status = 503, file = "{page}" }}\n'
    (tmp_path / "lb.toml").write_text('[pools.web]\nservers = ["a:1"]\n' + routes)
    monkeypatch.setenv("PREFORK_LB_CONFIG", str(tmp_path / "lb.toml"))
    for name, value in (("_last_good", None), ("_master", 0), ("_copies", None)):
        monkeypatch.setattr(current, name, value)
    config = current.load_as_master()
    page.unlink()
    answer = answer_of(make_router(config))
    assert (answer.status, answer.body) == (503, b"down for an hour")


def test_error_pages_are_what_the_master_has_read_and_single_statuses_go_before_ranges(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"500-599": tmp_path / "5xx.json", "502": tmp_path / "502.html"}
    for key, file in pages.items():
        file.write_text(key)
    written = ", ".join(f'"{key}" = "{file}"' for key, file in pages.items())
    text = f'[pools.web]\nservers = ["a:1"]\n[[routes]]\npool = "web"\nerror_pages = {{ {written} }}\n'
    (tmp_path / "lb.toml").write_text(text)
    monkeypatch.setenv("PREFORK_LB_CONFIG", str(tmp_path / "lb.toml"))
    for name, value in (("_last_good", None), ("_master", 0), ("_copies", None)):
        monkeypatch.setattr(current, name, value)
    config = current.load_as_master()
    for file in pages.values():
        file.unlink()
    serving = make_router(config).routes[0].serving
    assert serving is not None and set(serving.error_pages) == set(range(500, 600))
    assert serving.error_pages[502] == ([(b"Content-Type", b"text/html; charset=utf-8")], b"502")
    assert serving.error_pages[503] == ([(b"Content-Type", b"application/json")], b"500-599")


def test_a_route_that_sets_nothing_leaves_requests_as_they_are() -> None:
    """Else each request passes all that a route could do to it."""
    routes = (RouteConfig("p0"), RouteConfig("p0", hosts=("a.test",)))
    router = make_router(msgspec.structs.replace(config(1), routes=routes), make_guards=lambda route: [])
    assert [(route.actions, route.serving) for route in router.routes] == [(None, None)] * 2
