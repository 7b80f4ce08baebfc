"""Clients that ask too fast have to show that they are browsers."""
from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.filters import Answer, Filter, Request
from tests.unit.examples.conftest import MakeFilter


@pytest.fixture
def guard(make: MakeFilter, tmp_path: Path) -> Filter:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    return make("bot_guard:BotGuard", secret_file=str(tmp_path / "secret"), per_second=5, burst=10)


def ask(guard: Filter, client: str = "192.0.2.1", cookie: str = "") -> Answer | None:
    fields = [(b"Cookie", f"guard={cookie}".encode())] if cookie else []
    return guard.on_request(Request(b"GET", b"/", b"h", fields, client, b"https", "web", ["web"]))


def refused(guard: Filter, client: str = "192.0.2.1") -> str:
    """Ask until there is a challenge; return its page."""
    for _ in range(20):
        if (answer := ask(guard, client)) is not None:
            assert answer.status == 429 and isinstance(answer.body, str)
            return answer.body
    raise AssertionError("never refused")


def solved(page: str) -> str:
    """What the page's script finds."""
    task = re.search(r'task = "([0-9a-f.]+)"', page)
    assert task is not None
    number = 0
    while hashlib.sha256(f"{task[1]}.{number}".encode()).digest()[:2] != b"\0\0":
        number += 1
    return f"{task[1]}.{number}"


def test_a_client_has_its_burst_and_its_rate(guard: Filter, clock: ManualClock) -> None:
    assert [ask(guard) is None for _ in range(12)] == [True] * 10 + [False] * 2
    clock.advance(1.0)
    assert [ask(guard) is None for _ in range(6)].count(True) in (4, 5)  # the refused ones cost a turn at most
    assert ask(guard, "198.51.100.7") is None


def test_a_solved_challenge_opens_the_door_for_this_client_alone(guard: Filter) -> None:
    cookie = solved(refused(guard))
    assert [ask(guard, cookie=cookie) for _ in range(50)] == [None] * 50
    refused(guard, "198.51.100.7")
    assert ask(guard, "198.51.100.7", cookie) is not None


def test_nobody_makes_a_cookie_of_his_own(guard: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = solved(refused(guard))
    until, mark, number = cookie.split(".")
    later = f"{int(until) + 60}.{mark}.{number}"
    for forged in ("x", "..", later, f"{until}.{'0' * 32}.{number}", f"{until}.{mark}.x", f"{cookie}{'0' * 200}", "9" * 5000):
        assert ask(guard, cookie=forged) is not None
    now = time.time()
    monkeypatch.setattr(guard, "_now", lambda: now + 3601)
    assert ask(guard, cookie=cookie) is not None


def test_a_network_of_ipv6_is_one_client(guard: Filter) -> None:
    answers = [ask(guard, f"2001:db8::{number:x}") for number in range(20)]
    assert [answer is None for answer in answers] == [True] * 10 + [False] * 10
