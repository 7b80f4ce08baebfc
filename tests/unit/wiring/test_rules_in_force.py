"""The rules of a route in words, as `explain` tells them."""
from __future__ import annotations

from typing import Any

import pytest

from prefork_lb.config.access import BasicAuthConfig, ForwardAuthConfig
from prefork_lb.config.filters import FilterConfig
from prefork_lb.config.routes import (
    BandwidthConfig,
    ConcurrencyConfig,
    CorsConfig,
    HttpsConfig,
    MirrorConfig,
    RateConfig,
    RouteConfig,
)
from prefork_lb.net.networks import lies_in
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead
from prefork_lb.wiring.rules_in_force import rules_of_route

FACTS = Facts(RequestHead(b"GET", b"/a", 1, [(b"Host", b"a.test"), (b"X-Key", b"k")]), b"/a", "a.test", (),
              ClientInfo("192.0.2.1", b"http", 80, False), lies_in(()))


@pytest.mark.parametrize(("name", "value", "words"), [
    ("https", HttpsConfig(60), "https only, which browsers remember for 60 s"),
    ("cors", CorsConfig(("https://a.test", "https://*.b.test"), ("GET", "PUT")),
     "pages of https://a.test, https://*.b.test by GET, PUT"),
    ("cors", CorsConfig(("https://a.test",), ("GET",), credentials=True), "pages of https://a.test by GET, with credentials"),
    ("error_pages", {"502": "/e/502.html", "500-599": "/e/all.html"}, "502: /e/502.html, 500-599: /e/all.html"),
    ("allow", ("10.0.0.0/8", "::1"), "10.0.0.0/8, ::1"),
    ("deny", ("10.0.0.0/8",), "10.0.0.0/8"),
    ("rate", RateConfig(0.5, burst=5), "0.5 a second and 5 at once of each source"),
    ("rate", RateConfig(10, "cookie:id"), "10 a second and 1 at once of each cookie:id; not this request, which has none"),
    ("body_limit", 1000, "1000 bytes"),
    ("client_certificate", True, "the client has to show one"),
    ("concurrency", ConcurrencyConfig(2, "header:X-Key"), "2 at once of each header:X-Key"),
    ("concurrency", ConcurrencyConfig(2, "query:k"), "2 at once of each query:k; not this request, which has none"),
    ("basic_auth", BasicAuthConfig("/e/users"), "users of /e/users"),
    ("forward_auth", ForwardAuthConfig("http://10.0.0.1:9091/verify?secret=x"), "http://10.0.0.1:9091/verify decides"),
    ("filters", (FilterConfig("a:B"), FilterConfig("c:D", {"x": "1"})), "a:B, c:D"),
    ("split", {"stable": 95, "canary": 5}, "stable 95, canary 5"),
    ("failover", "other", "to the pool other"),
    ("mirror", MirrorConfig("shadow", 0.1), "copies of 10 % to the pool shadow"),
    ("bandwidth", BandwidthConfig(65536), "65536 bytes a second"),
    ("bandwidth", BandwidthConfig(65536, 1000), "65536 bytes a second after 1000 bytes"),
])
def test_each_rule_has_its_words_and_its_place(name: str, value: Any, words: str) -> None:
    rule, = rules_of_route(RouteConfig(**{name: value}), "routes[3]", FACTS)
    assert (rule.name, rule.value, rule.place) == (name, words, f"routes[3].{name}")


def test_a_route_that_sets_nothing_has_no_rules() -> None:
    assert rules_of_route(RouteConfig("web"), "routes[0]", FACTS) == []
