"""The path as routes compare it: normal forms, and what no reading is sure of."""
from __future__ import annotations

import random

import pytest

from prefork_lb.native.loader import NativeHeads, native_heads
from prefork_lb.routing.path import compared, plain_path
from prefork_lb.wire import compiled
from tests.support.calls import calls_of


@pytest.mark.parametrize(("raw", "path", "sent"), [
    (b"/", b"/", b"/"),
    (b"/a/b", b"/a/b", b"/a/b"),
    (b"/a/", b"/a/", b"/a/"),
    (b"/.well-known/x", b"/.well-known/x", b"/.well-known/x"),
    (b"/a/...", b"/a/...", b"/a/..."),
    (b"/a..b/.c", b"/a..b/.c", b"/a..b/.c"),
    # RFC 3986 6.2.2.2: escapes of unreserved characters
    (b"/%61dmin", b"/admin", b"/admin"),
    (b"/%41%7e%2D%5f", b"/A~-_", b"/A~-_"),
    (b"/caf%c3%a9", b"/caf%C3%A9", b"/caf%C3%A9"),  # 6.2.2.1: capitals in the others
    (b"/a%20b%3a%40", b"/a%20b%3A%40", b"/a%20b%3A%40"),
    (b"/100%25", b"/100%25", b"/100%25"),
    # RFC 3986 5.2.4 and 6.2.2.3: dot segments; the first two are its own examples
    (b"/a/b/c/./../../g", b"/a/g", b"/a/g"),
    (b"/mid/content=5/../6", b"/mid/6", b"/mid/6"),
    (b"/a/.", b"/a/", b"/a/"),
    (b"/a/..", b"/", b"/"),
    (b"/a/b/..", b"/a/", b"/a/"),
    (b"/..", b"/", b"/"),
    (b"/../../a", b"/a", b"/a"),
    (b"/a/%2e%2e/b", b"/b", b"/b"),
    (b"/a/.%2E/b", b"/b", b"/b"),
    (b"/a/%2e/b", b"/a/b", b"/a/b"),
    # slashes count as one, and are sent as they came
    (b"/a//b", b"/a/b", b"/a//b"),
    (b"/a//", b"/a/", b"/a//"),
    (b"/proxy/http://host/x", b"/proxy/http:/host/x", b"/proxy/http://host/x"),
    (b"/a//b/../c", b"/a/c", b"/a//c"),
    (b"*", b"*", b"*"),
])
def test_a_path_is_compared_and_sent_in_its_normal_form(raw: bytes, path: bytes, sent: bytes) -> None:
    assert compared(raw) == (path, sent, "")


@pytest.mark.parametrize("raw", [b"/a/b/c/./../../g", b"/%61/%2E%2e/b//c/.", b"/a%2fb", b"/x/..//y"])
def test_the_normal_form_is_its_own_normal_form(raw: bytes) -> None:
    path, sent, _ = compared(raw)
    assert compared(path).path == path
    assert compared(sent)[:2] == (path, sent)


@pytest.mark.parametrize(("raw", "words"), [
    (b"/a\\b", "a backslash"),
    (b"/a%5cb", "a backslash"),
    (b"/a%2fb", "an escaped slash"),
    (b"/a%2Fb", "an escaped slash"),
    (b"/a;b", "a semicolon"),
    (b"/a%3bb", "a semicolon"),
    (b"/..;/admin", "a semicolon"),
    (b"/admin%3fx", "an escaped question mark"),
    (b"/admin%23", "number sign"),
    (b"/(S(x))/admin", "a session of ASP.NET"),
    (b"/a/%28a(b)%29admin", "a session of ASP.NET"),
    (b"/%c2%a5admin", "convert to a separator"),
    (b"/%252e%252e/admin", "decode twice"),
    (b"/a%252fb", "decode twice"),
    (b"/a%00.txt", "control character"),
    (b"/a%0d%0ab", "control character"),
    (b"/a%7f", "control character"),
    (b"/%", "without two digits"),
    (b"/%4", "without two digits"),
    (b"/%zz", "without two digits"),
    (b"/%u002e", "without two digits"),
    (b"/%c0%ae%c0%ae/admin", "overlong"),
    (b"/%c1%9cadmin", "overlong"),
    (b"/%e0%80%af", "overlong"),
    (b"/%f0%80%80%af", "overlong"),
    (b"/%ef%bc%8fadmin", "convert to a separator"),
    (b"/%ef%bc%8e%ef%bc%8e/admin", "convert to a separator"),
    (b"/admin%20", "white space"),
    (b"/admin%20/x", "white space"),
    (b"/admin%c2%a0", "white space"),
    (b"/admin%85", "white space"),
    (b"//admin", "two slashes"),
    (b"//", "two slashes"),
    (b"/x/..//admin", "two slashes"),  # of the path that is sent
    (b"/public//../admin", "behind an empty segment"),
    (b"/public//./../admin", "behind an empty segment"),
])
def test_what_servers_read_in_different_ways_is_named(raw: bytes, words: str) -> None:
    assert words in compared(raw).doubt


@pytest.mark.parametrize("raw", [
    b"/caf%c3%a9", b"/a%20b", b"/%e2%82%ac", b"/%f0%9f%98%80", b"/a:b@c,d=e", b"/100%25", b"/%25%20a"])
def test_what_all_read_alike_is_not_doubted(raw: bytes) -> None:
    assert compared(raw).doubt == ""


@pytest.mark.parametrize("heads", [native_heads(), None], ids=["native", "pure"])
def test_a_path_is_plain_when_it_is_its_own_normal_form(heads: NativeHeads | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "heads", heads)
    assert [plain_path(target) for target in (b"/a/b.c?d=%2f;//", b"/a-~_", b"/", b"/?", b"/a?b?c", b"/a/?/../")] == [
        6, 5, 1, 1, 2, 3]
    assert [plain_path(target) for target in (b"*", b"", b"?", b"a/b", b"/a/.", b"/a/", b"/a//?", b"/(a)", b"/a(b)")] == [
        -1, -1, -1, -1, -1, 3, -1, -1, 5]
    rng = random.Random(5)
    plain = 0
    for _ in range(20_000):
        path = b"/" + b"".join(rng.choice([b"/", b".", b"(", b"%", b"%41", b";", b"\\", b"\0", *[b"a", b"b"] * 8])
                               for _ in range(rng.randrange(9)))
        rest = rng.choice([b"", b"?", b"?a=%2f//;"])
        length = plain_path(path + rest)
        assert length in (-1, len(path)), path
        plain += length >= 0
        assert length < 0 or compared(path) == (path, path, ""), path
    assert 2000 < plain < 18_000


@pytest.mark.parametrize("piece", [b"/a", b"/..", b"/.", b"//", b"%2e%2e/", b"/%61", b";", b"/;%5c"])
def test_the_steps_for_a_path_grow_with_its_length_and_not_with_its_square(piece: bytes) -> None:
    def steps(count: int) -> int:
        path = b"/" + piece * count
        return calls_of(lambda: compared(path))

    assert steps(4000) <= 5 * steps(1000)
