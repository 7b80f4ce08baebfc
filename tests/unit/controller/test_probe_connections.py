"""What becomes of the connections of checks."""
from __future__ import annotations

import socket
import threading

import pytest

from prefork_lb.controller.http_check import BODY_LIMIT_BYTES
from prefork_lb.controller.probe import CheckOutcome, Prober
from tests.unit.controller.answering import (
    DEADLINE_S,
    SHORT_S,
    Serve,
    Turn,
    answer,
    closes_after,
    hangs,
    http,
    resets_after,
    says,
)


@pytest.mark.parametrize("more", [{}, {"text": "ready"}, {"text": "missing"}, {"statuses": frozenset([204])}])
def test_the_connection_is_kept_whatever_came_of_the_check(prober: Prober, serve: Serve, more: dict[str, object]) -> None:
    server = serve(says(answer()))
    for _ in range(3):
        prober.probe(http(server.address, **more))
    assert (server.connections, len(server.heads)) == (1, 3)


def test_a_large_body_costs_the_connection_and_not_the_check(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer(bytes(BODY_LIMIT_BYTES + 1))))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert server.connections == 2


def test_an_idle_connection_that_was_closed_is_no_failure(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(answer()), says(answer()))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert server.connections == 2


@pytest.mark.parametrize("turn", [closes_after(b""), resets_after(b"")])
def test_a_connection_closed_as_the_request_comes_is_no_failure(prober: Prober, serve: Serve, turn: Turn) -> None:
    server = serve(says(answer()), turn, says(answer()))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert (server.connections, len(server.heads)) == (2, 3)


def test_a_fresh_connection_is_tried_once_only(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()), closes_after(b""))
    assert prober.probe(http(server.address)).passed
    assert prober.probe(http(server.address))[:2] == (False, "connection closed before the response")
    assert (server.connections, len(server.heads)) == (2, 3)


def test_a_first_connection_that_is_closed_is_not_tried_again(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(b""), says(answer()))
    assert not prober.probe(http(server.address)).passed
    assert server.connections == 1


def test_a_failure_does_not_stick(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(b"garbage\r\n"), hangs, says(answer()))
    passed = [prober.probe(http(server.address, timeout_s=SHORT_S)).passed for _ in range(2)]
    server.close()  # lets the one that hangs go
    assert passed == [False, False]
    again = serve(closes_after(b"garbage\r\n"), says(answer()))
    assert [prober.probe(http(again.address)).passed for _ in range(2)] == [False, True]


def test_one_probe_by_two_threads_at_a_time(prober: Prober, serve: Serve) -> None:
    both_here = threading.Barrier(2)

    def meets(connection: socket.socket, over: threading.Event) -> None:
        both_here.wait(DEADLINE_S)
        connection.sendall(answer())

    probe = http(serve(meets).address)
    outcomes: list[CheckOutcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(prober.probe(probe)), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [outcome.passed for outcome in outcomes] == [True, True]


def test_connections_of_other_probes_are_closed(prober: Prober, serve: Serve) -> None:
    kept, dropped = serve(says(answer())), serve(says(answer()))
    for server in (kept, dropped):
        prober.probe(http(server.address))
    prober.keep({http(kept.address)})
    for server in (kept, dropped):
        prober.probe(http(server.address))
    assert (kept.connections, dropped.connections) == (1, 2)
