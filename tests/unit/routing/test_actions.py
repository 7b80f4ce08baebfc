"""What a route does besides choosing a pool: who may come, answers of its own, changes on the way."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.errors import ContentTooLarge, Forbidden, NotFound, OwnAnswer
from prefork_lb.routing.actions import Actions, redirecting, responding, responding_from
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.template import Facts, Template
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination


def facts(target: str = "/old/a/b?c=d", paths: tuple[str, ...] = ("/old",), host: str = "www.example.org:8080") -> Facts:
    head = parse_request(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), HeadLimits())
    router = Router([Route("web", paths=paths)], passes_doubtful=True)
    peer, goal = ClientInfo("192.0.2.1", b"https", 443, False), destination(head)
    route, sent = router.find(goal, head, peer)
    return router.facts(route, goal, sent, head, peer)


@pytest.mark.parametrize(("text", "expected"), [
    ("https://new.example/x/{rest}", b"https://new.example/x/a/b?c=d"),
    ("https://{host}{path}{query}", b"https://www.example.org/old/a/b?c=d"),
    ("{scheme} {method} {client}", b"https GET 192.0.2.1"),
    ("a{{b}}c", b"a{b}c"),
    ("", b""),
])
def test_a_text_holds_parts_of_the_request(text: str, expected: bytes) -> None:
    assert Template(text)(facts()) == expected


@pytest.mark.parametrize(("target", "paths", "rest"), [
    ("/old/a", ("/old",), b"a"),
    ("/old", ("/old",), b""),
    ("/old?x", ("/old",), b"?x"),
    ("/old/", ("/old/",), b""),
    ("/old/deep/a", ("/old", "/old/deep"), b"a"),  # the longest of its prefixes
    ("/old//a/./b/../%63", ("/old",), b"a/c"),
    ("/a/b", ("=/a/b",), b"a/b"),  # a whole path has no prefix
    ("/a/b", (), b"a/b"),
])
def test_the_rest_is_what_follows_the_prefix(target: str, paths: tuple[str, ...], rest: bytes) -> None:
    assert facts(target, paths).rest == rest


@pytest.mark.parametrize(("text", "words"), [
    ("{user}", "there is no {user}; expected one of {host}, {path}"),
    ("{}", "there is no {}"),
    ("{path!r}", "there is no {path}"),
    ("{path:>9}", "there is no {path}"),
    ("{path", "write {{ and }} for braces"),
    ("}", "write {{ and }} for braces"),
])
def test_a_text_with_another_place_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Template(text)
    assert words in str(caught.value)


def location(text: str, target: str, host: str = "www.example.org") -> bytes:
    answer = redirecting(text, 301)(facts(target, (), host))
    assert answer.status == 301
    return dict(answer.fields)[b"Location"]


@pytest.mark.parametrize(("text", "target", "expected"), [
    ("/{rest}", "//evil.net/x", b"/evil.net/x"),
    ("{path}", "//evil.net/x", b"/evil.net/x"),
    ("/{rest}", "/\\evil.net", b"/evil.net"),
    ("/%5C{rest}", "/evil.net", b"/%5Cevil.net"),
    ("https://example.org{path}", "//evil.net", b"https://example.org/evil.net"),
])
def test_no_path_leads_a_client_to_another_host(text: str, target: str, expected: bytes) -> None:
    assert location(text, target) == expected


@pytest.mark.parametrize("text", ["https://example.org{rest}", "http://{client}/x", "https://example.org:{rest}", "https://{host}{rest}",
                                  "https://a.{rest}", "{scheme}://x{query}"])
def test_a_redirect_whose_host_the_client_could_choose_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="could choose the host"):
        redirecting(text, 301)


def test_who_may_not_come_is_refused_before_an_answer() -> None:
    actions = Actions(may_come=lambda client: client == "192.0.2.9", answer=responding(200, [], b"secret"))
    with pytest.raises(Forbidden, match="not for the client 192.0.2.1"):
        actions.apply(facts(), b"/", 0)


def test_a_longer_body_than_allowed_is_refused() -> None:
    actions = Actions(body_limit=10)
    actions.apply(facts(), b"/", 10)
    with pytest.raises(ContentTooLarge):
        actions.apply(facts(), b"/", 11)


def test_a_folder_answers_with_its_files_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    (folder / "below").mkdir(parents=True)
    (folder / "token-1_A").write_text("proof")
    (folder / ".hidden").write_text("secret")
    (folder / "large").write_bytes(bytes((1 << 20) + 1))
    (folder / "link").symlink_to("/etc/passwd")
    (tmp_path / "outside").write_text("secret")
    answer = responding_from(str(folder), [])
    prefix = "/.well-known/acme-challenge/"
    with pytest.raises(OwnAnswer) as caught:
        raise answer(facts(f"{prefix}token-1_A?x", (prefix,)))
    assert (caught.value.status, caught.value.body) == (200, b"proof")
    for name in ("", "none", "below", ".hidden", "large", "link", "below/x", "%2e%2e%2foutside", "..%2foutside", "token-1_A/x",
                 "a%00"):
        with pytest.raises(NotFound):
            answer(facts(f"{prefix}{name}", (prefix,)))
