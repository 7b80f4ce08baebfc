"""A share of the visitors sees the new version."""
from __future__ import annotations

import pytest

from prefork_lb.filters import Exchange, Filter, Memory, Request, Response
from tests.unit.examples.conftest import MakeFilter


def variant(test: Filter, cookie: str = "") -> tuple[Request, Response]:
    fields = [(b"Cookie", f"x=1; ab-checkout={cookie}".encode())] if cookie else []
    request = Request(b"GET", b"/", b"h", fields, "192.0.2.1", b"https", "old", ["old", "new"])
    response = Response(200, [], "a:1")
    assert test.on_request(request) is None
    test.on_response(request, response)
    return request, response


def test_a_visitor_keeps_what_he_saw(make: MakeFilter) -> None:
    test = make("ab_test:ABTest", name="checkout", pool="new", share=0.5)
    for _ in range(50):
        first, told = variant(test)
        cookie = told.fields.get("Set-Cookie").partition(";")[0].partition("=")[2]
        again, untold = variant(test, cookie)
        assert again.pool == first.pool and "Set-Cookie" not in untold.fields
        assert first.fields.get("X-Variant") == first.pool
        assert told.fields.get("Cache-Control") == "private, no-cache"


def test_the_share_is_kept(make: MakeFilter) -> None:
    test = make("ab_test:ABTest", name="checkout", pool="new", share=0.1)
    new = sum(variant(test)[0].pool == "new" for _ in range(5000))
    assert 375 < new < 625  # 500, with a deviation of 21: six of them on either side


@pytest.mark.parametrize(("cookie", "pool"), [("0", "new"), ("99999", "new"), ("100000", "old"), ("999999", "old")])
def test_the_place_in_the_cookie_says_which_variant(make: MakeFilter, cookie: str, pool: str) -> None:
    request, _ = variant(make("ab_test:ABTest", name="checkout", pool="new", share=0.1), cookie)
    assert request.pool == pool


@pytest.mark.parametrize("cookie", ["x", "-1", "1000000", "%30", "\u0663"])
def test_a_cookie_of_somebody_elses_making_is_replaced(make: MakeFilter, cookie: str) -> None:
    _, told = variant(make("ab_test:ABTest", name="checkout", pool="new", share=0.1), cookie)
    assert "Set-Cookie" in told.fields


def test_requests_and_errors_are_counted_by_variant(make: MakeFilter, memory: Memory) -> None:
    test = make("ab_test:ABTest", name="checkout", pool="new", share=0.1)
    for cookie, status in (("0", 200), ("0", 502), ("999999", 200), ("999999", 404), ("999999", 503)):
        test.on_end(variant(test, cookie)[0], Exchange(status, "a:1", 0.1, 0, 0, ""))
    assert [memory[index] for index in range(4)] == [3, 2, 1, 1]


def test_a_share_is_a_share(make: MakeFilter) -> None:
    with pytest.raises(ValueError, match="expected a number in 0..1"):
        make("ab_test:ABTest", name="checkout", pool="new", share=10)
