"""Published tricks with paths: none gets by an access rule on /admin, whatever lenient server reads what is passed on."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefork_lb.errors import DownstreamError
from prefork_lb.routing.match import Route, Router
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from tests.support.lenient_readers import READERS, readers_of
from tests.support.path_tricks import TRICKS

RULES = {"prefix": ("/admin",), "whole": ("=/admin", "/admin/"), "RE2": ("~^/admin(/|$)",)}
STRANGER = ClientInfo("192.0.2.1", b"http", 80, False)


def passed(target: str, paths: tuple[str, ...]) -> bytes | None:
    """What a server gets of a request that the rule is not for; None: it is refused, or the rule's."""
    router = Router([Route("open"), Route("closed", paths=paths)])
    try:
        head = parse_request(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1"), HeadLimits())
        route, sent = router.find(destination(head), head, STRANGER)
    except DownstreamError:
        return None
    return sent if route.pool == "open" else None


def test_there_are_two_hundred_and_each_reader_falls_for_some() -> None:
    assert len(TRICKS) >= 200
    for name in READERS:
        assert any(name in readers_of(target.encode(), b"/admin") for _, target in TRICKS), name


@pytest.mark.parametrize("rule", RULES)
def test_no_trick_gets_by(rule: str) -> None:
    found = {target: (sent, readers) for _, target in TRICKS
             if (sent := passed(target, RULES[rule])) is not None and (readers := readers_of(sent, b"/admin"))}
    assert found == {}


def test_what_is_no_trick_passes() -> None:
    for target in ("/", "/administrator", "/x/admin", "/wiki/Foo_(bar)", "/caf%C3%A9", "/a%20b", "/100%25", "/x/..a", "/a.b/.c",
                   "/%E6%9D%B1%E4%BA%AC", "/x?next=/../admin;%2f"):
        assert passed(target, RULES["prefix"]) is not None, target


def test_the_page_has_every_trick_and_what_becomes_of_it_here() -> None:
    text = (Path(__file__).parents[3] / "docs/path-tricks.md").read_text()
    rows = re.findall(r"^\| `(.+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    assert [(source, target) for target, source, _ in rows] == list(TRICKS)
    for target, _, cell in rows:
        assert cell.startswith("refused") == (passed(target, RULES["prefix"]) is None), target
        assert "gets by" not in cell
