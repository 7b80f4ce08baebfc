"""Error pages: short, in the form that the client accepts, without internals."""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text
from tests.support.client import Response, fetch
from tests.support.ports import refusing_address
from tests.support.rig import Rig


@pytest.fixture(scope="module")
def balancer(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """Every request to dead.example meets a server that refuses; no route knows any other host."""
    with Rig(tmp_path_factory.mktemp("errors")) as rig, refusing_address() as address:
        config = pool_text([address], name="dead") + '[[routes]]\nhosts = ["dead.example"]\npool = "dead"\n'
        yield rig.balancer(config, front_end, workers=2)


def failed(balancer: Balancer, accept: str | None, host: str = "dead.example", method: str = "GET") -> Response:
    fields = [("Host", host)] + ([("Accept", accept)] if accept is not None else [])
    return fetch(balancer.address, "/secret?token=abc", method, fields=fields)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/html;q=0.2, application/json;q=0.9", "application/json"),
        ("application/json;q=0, text/html", "text/html"),
    ],
)
def test_the_form_follows_accept(balancer: Balancer, accept: str | None, expected: str) -> None:
    response = failed(balancer, accept)
    assert response.status == 502
    assert (response.value("Content-Type") or "").partition(";")[0] == expected
    text = response.body.decode()
    assert "502" in text
    if expected == "application/json":
        assert isinstance(json.loads(text), dict)
    if expected == "text/html":
        assert "</" in text


@pytest.mark.parametrize("accept", ["text/plain", "text/html", "application/json"])
def test_a_page_is_short_and_shows_no_internals(balancer: Balancer, accept: str) -> None:
    response = failed(balancer, accept)
    shown = response.body.decode() + repr(response.fields)
    assert len(response.body) < 1500
    for internal in ("127.0.0.1", "Traceback", "errno", "Errno", "prefork_lb/", "secret", "dead"):
        assert internal not in shown, shown


@pytest.mark.parametrize(("host", "status"), [("dead.example", 502), ("unknown.example", 404)])
def test_the_status_says_whose_side_failed(balancer: Balancer, host: str, status: int) -> None:
    assert failed(balancer, "text/plain", host).status == status


def test_an_error_to_a_head_request_has_no_body(balancer: Balancer) -> None:
    response = failed(balancer, "text/html", method="HEAD")
    assert (response.status, response.body) == (502, b"")
