"""Checks of servers that start, over real sockets."""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published
from prefork_lb.controller.start_checks import StartChecks
from tests.support.ports import refusing_address
from tests.support.waiting import wait_until
from tests.unit.controller.answering import Serve, answer, says

OK, BAD = says(answer()), says(answer(status="503 Service Unavailable"))


def config(**health: object) -> Config:
    pool = {"servers": [{"address": "10.0.0.1:80"}], **({"health": health} if health else {})}
    return decode_published(json.dumps({"pools": {"app": pool}}).encode())[0]


@pytest.fixture
def checks() -> Iterator[StartChecks]:
    checks = StartChecks("app", config(path="/healthz", rise=3))
    yield checks
    checks.close()


def watched(checks: StartChecks, *addresses: str) -> None:
    """Watch until a check of each has passed."""
    def all_ready() -> bool:
        checks.watch(addresses)
        return all(map(checks.is_ready, addresses))

    wait_until(all_ready, lambda: f"ready: {[checks.why_not(address) for address in addresses]}", 20, every=0.02)


def test_the_first_check_of_the_pool_that_passes_counts(checks: StartChecks, serve: Serve) -> None:
    server = serve(BAD, BAD, OK)
    assert not checks.is_ready(str(server.address))
    assert checks.why_not(str(server.address)) == "no check has ended yet"
    watched(checks, str(server.address))
    assert b"GET /healthz" in server.heads[0]


def test_without_checks_a_connection_is_enough(serve: Serve) -> None:
    checks = StartChecks("app", config())
    server = serve()
    watched(checks, str(server.address))
    checks.close()


def test_why_a_server_is_not_ready_is_told(checks: StartChecks) -> None:
    with refusing_address() as address:
        def is_told() -> bool:
            checks.watch([address])
            return "refused" in checks.why_not(address)

        wait_until(is_told, "the reason is told", 20, every=0.02)
        assert not checks.is_ready(address)


def test_what_was_found_before_does_not_count_for_the_next_server_at_an_address(checks: StartChecks, serve: Serve) -> None:
    server = serve(OK)
    watched(checks, str(server.address))
    checks.watch([])
    checks.watch([str(server.address)])
    assert not checks.is_ready(str(server.address))
