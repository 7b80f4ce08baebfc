"""Routes for https alone."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadRequest
from prefork_lb.net.networks import lies_in
from prefork_lb.routing.https import Https
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead


def facts(target: bytes = b"/", host: str = "a.test", scheme: bytes = b"http", told: bytes = b"",
          is_trusted: bool = False) -> Facts:
    head = RequestHead(b"GET", target, 1, [(b"X-Forwarded-Proto", told)] if told else [])
    return Facts(head, target, host, (), ClientInfo("192.0.2.1", scheme, 80, is_trusted), lies_in(()))


def test_http_is_sent_to_https() -> None:
    answer = Https(60, False).redirect(facts(b"/a/../b?c=d"))
    assert answer is not None and answer.status == 308
    assert (b"Location", b"https://a.test/b?c=d") in answer.fields


def test_no_path_leads_to_another_host() -> None:
    answer = Https(60, False).redirect(facts(b"//evil.net/x"))
    assert answer is not None and dict(answer.fields)[b"Location"].startswith(b"https://a.test/")


def test_https_is_served_and_told_to_browsers() -> None:
    https = Https(60, True)
    for asked in (facts(scheme=b"https"), facts(told=b"https", is_trusted=True)):
        assert https.redirect(asked) is None
        assert https.fields(asked) == [(b"Strict-Transport-Security", b"max-age=60; includeSubDomains")]


def test_over_http_nothing_is_told() -> None:
    """RFC 6797 7.2; and a client that is no trusted proxy cannot say that it speaks https."""
    asked = facts(told=b"https")
    assert Https(60, False).redirect(asked) is not None and Https(60, False).fields(asked) == []


@pytest.mark.parametrize("asked", [facts(host=""), facts(b"*")])
def test_what_cannot_be_redirected_is_refused(asked: Facts) -> None:
    with pytest.raises(BadRequest):
        Https(60, False).redirect(asked)
