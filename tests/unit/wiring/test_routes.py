"""Routes as a worker makes them from a configuration."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config import current
from prefork_lb.errors import OwnAnswer
from prefork_lb.routing.match import Router
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits, parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.routes import make_router


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
