"""Users with passwords: who passes, what is computed for it, and what is remembered."""
from __future__ import annotations

import base64
from collections.abc import Callable

import bcrypt
import pytest
from argon2 import PasswordHasher

from prefork_lb.access.basic import REMEMBERED_S, BasicAuth, credentials, verify
from prefork_lb.clock import ManualClock
from prefork_lb.errors import ChecksBusy, Unauthorized
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead

PEER = ClientInfo("192.0.2.1", b"http", 80, False)


def facts(*values: bytes) -> Facts:
    head = RequestHead(b"GET", b"/", 1, [(b"Authorization", value) for value in values])
    return Facts(head, b"/", "h", (), PEER, lambda _: False)


def basic(pair: bytes) -> bytes:
    return b"Basic " + base64.b64encode(pair)


class Users:
    """Two users, whose hashes are their passwords; what was computed for them."""

    def __init__(self, field: str = "") -> None:
        self.clock = ManualClock()
        self.computed: list[tuple[bytes, bytes]] = []
        self.auth = BasicAuth({b"ann": b"1", b"bob": b"2"}, "r", field, self.compute, self.clock, self._verify)
        self.meanwhile: Callable[[], object] = lambda: None

    def _verify(self, hashed: bytes, password: bytes) -> bool:
        self.computed.append((hashed, password))
        return hashed == password

    def compute(self, function: Callable[[], bool]) -> bool:
        self.meanwhile()
        return function()

    def ask(self, pair: bytes) -> Passed | None:
        try:
            return self.auth(facts(basic(pair)))
        except Unauthorized as exc:
            assert exc.fields == [(b"WWW-Authenticate", b'Basic realm="r", charset="UTF-8"')]
            return None


def test_a_user_with_the_right_password_passes_and_is_named() -> None:
    users = Users("X-User")
    passed = users.ask(b"ann:1")
    assert passed is not None and passed.user == b"ann" and list(passed.fields) == [(b"X-User", b"ann")]
    assert users.ask(b"ann:2") is None and users.ask(b"bob:1") is None and users.ask(b"carl:1") is None


def test_an_unknown_user_costs_what_a_known_one_does_and_passes_with_no_password() -> None:
    users = Users()
    assert [users.ask(pair) for pair in (b"carl:1", b"carl:2", b"ann:7")] == [None] * 3
    assert users.computed == [(b"1", b"1"), (b"1", b"2"), (b"1", b"7")]


def test_what_was_right_is_remembered_for_a_while_and_what_was_wrong_is_not() -> None:
    users = Users()
    for _ in range(3):
        assert users.ask(b"ann:1") and not users.ask(b"ann:3")
    assert users.computed == [(b"1", b"1"), (b"1", b"3"), (b"1", b"3"), (b"1", b"3")]
    users.clock.advance(REMEMBERED_S)
    assert users.ask(b"ann:1") and users.computed.count((b"1", b"1")) == 2


def test_what_is_remembered_is_a_hash_that_nobody_else_can_make() -> None:
    keys: list[bytes] = []
    for users in (Users(), Users()):
        users.ask(b"bob:2")
        keys += users.auth._right._found
    assert [len(key) for key in keys] == [16, 16] and keys[0] != keys[1]


def test_who_waited_for_the_same_check_computes_nothing() -> None:
    users = Users()

    def first() -> None:
        users.meanwhile = lambda: None
        assert users.ask(b"ann:1")

    users.meanwhile = first
    assert users.ask(b"ann:1")
    assert users.computed == [(b"1", b"1")]


def test_while_many_wait_further_ones_are_refused() -> None:
    users, depth = Users(), 0

    def another() -> None:
        nonlocal depth
        depth += 1
        users.auth(facts(basic(b"ann:wrong%d" % depth)))

    users.meanwhile = another
    with pytest.raises(ChecksBusy):
        another()
    assert depth == 33
    users.meanwhile = lambda: None
    assert users.ask(b"ann:1")


@pytest.mark.parametrize("values", [
    (), (b"",), (b"Basic",), (b"Basic !!",), (b"Bearer YW5uOjE=",), (basic(b"ann"),), (basic(b"ann:1"), basic(b"ann:1")),
    (b"Basic YW5uOjE",), (basic(b"ann:1\n"),), (basic(b"a\x00nn:1"),)])
def test_what_is_no_pair_is_refused_without_a_check(values: tuple[bytes, ...]) -> None:
    users = Users()
    with pytest.raises(Unauthorized):
        users.auth(facts(*values))
    assert users.computed == []


def test_credentials() -> None:
    assert credentials(b"bAsIc  " + base64.b64encode(b"a:b:c ")) == (b"a", b"b:c ")
    assert credentials(basic("é:ü".encode())) == ("é".encode(), "ü".encode())


def test_hashes_of_both_kinds() -> None:
    hashes = [bcrypt.hashpw(b"p", bcrypt.gensalt(4)), bcrypt.hashpw(b"p", bcrypt.gensalt(4)).replace(b"$2b$", b"$2y$"),
              PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(b"p").encode()]
    assert [(verify(hashed, b"p"), verify(hashed, b"q")) for hashed in hashes] == [(True, False)] * 3
    long = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
    assert verify(long, b"x" * 100) and not verify(long, b"x" * 71)
