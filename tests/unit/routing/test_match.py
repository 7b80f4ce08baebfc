"""Routes: the most specific one wins."""
from __future__ import annotations

import pytest

from prefork_lb.errors import NoRoute
from prefork_lb.routing.match import Route, Router

ANY_HOST: tuple[str, ...] = ()


def router(*routes: tuple[tuple[str, ...], tuple[str, ...], str]) -> Router:
    return Router([Route(hosts, paths, pool) for hosts, paths, pool in routes])


SITES = router(
    (ANY_HOST, (), "rest"),
    (ANY_HOST, ("/status",), "status"),
    (("*.example.org",), (), "wild"),
    (("*.deep.example.org",), (), "deep"),
    (("www.example.org", "example.org"), (), "www"),
    (("www.example.org",), ("/api/", "/v2/api/"), "api"),
    (("www.example.org",), ("/api/admin/",), "admin"),
)


@pytest.mark.parametrize(("host", "path", "pool"), [
    ("www.example.org", b"/", "www"),
    ("example.org", b"/", "www"),
    ("a.example.org", b"/", "wild"),
    ("a.b.example.org", b"/", "wild"),
    ("a.deep.example.org", b"/", "deep"),  # the longer wildcard
    ("deep.example.org", b"/", "wild"),  # a wildcard stands for one label at least
    ("xexample.org", b"/", "rest"),
    ("other.net", b"/x", "rest"),
    ("", b"/x", "rest"),
    ("other.net", b"/status", "status"),
    ("other.net", b"/statuses", "status"),  # a prefix, not a segment
    ("other.net", b"/Status", "rest"),
    ("www.example.org", b"/status", "www"),  # the host goes before the path
    ("www.example.org", b"/api/x", "api"),
    ("www.example.org", b"/v2/api/x", "api"),
    ("www.example.org", b"/api/admin/x", "admin"),  # the longer prefix
    ("www.example.org", b"/api", "www"),
    ("www.example.org", b"//api/x", "www"),  # byte for byte
    ("www.example.org", b"/x/../api/", "www"),
    ("www.example.org", b"/%61pi/", "www"),
])
def test_the_most_specific_route_is_found(host: str, path: bytes, pool: str) -> None:
    assert SITES.pool(host, path) == pool


def test_of_equal_routes_the_first_wins() -> None:
    assert router((ANY_HOST, ("/a",), "one"), (ANY_HOST, ("/a",), "two")).pool("h", b"/a") == "one"
    assert router((("h",), (), "one"), (("h",), (), "two")).pool("h", b"/") == "one"


def test_a_host_whose_paths_do_not_match_falls_back_to_the_wildcard_and_then_to_any() -> None:
    routes = router((("a.example.org",), ("/x",), "exact"), (("*.example.org",), ("/y",), "wild"), (ANY_HOST, ("/z",), "any"))
    assert [routes.pool("a.example.org", path) for path in (b"/x", b"/y", b"/z")] == ["exact", "wild", "any"]


def test_hosts_in_the_configuration_may_have_capitals() -> None:
    assert router((("WWW.Example.ORG",), (), "one"), (("*.Example.NET",), (), "two")).pool("www.example.org", b"/") == "one"
    assert router((("*.Example.NET",), (), "two")).pool("a.example.net", b"/") == "two"


def test_without_a_matching_route_the_error_names_host_and_path() -> None:
    with pytest.raises(NoRoute, match=r"no route for host 'b.org' and path b'/x'") as caught:
        router((("a.org",), (), "one")).pool("b.org", b"/x")
    assert caught.value.status == 404
    with pytest.raises(NoRoute):
        Router([]).pool("a", b"/")


def test_a_long_path_is_cut_short_in_the_error() -> None:
    with pytest.raises(NoRoute) as caught:
        Router([]).pool("a", b"/" + b"x" * 5000)
    assert len(str(caught.value)) < 200


def test_the_options_target_of_the_whole_server_reaches_a_route_without_paths() -> None:
    """OPTIONS * has the path `*`, which no prefix that begins with / matches."""
    assert router((ANY_HOST, (), "one"), (ANY_HOST, ("/",), "two")).pool("h", b"*") == "one"


def test_a_last_dot_in_a_route_means_the_same_name() -> None:
    routes = router((("dot.example.org.",), (), "dot"), (("*.example.net.",), (), "wild"), (ANY_HOST, (), "rest"))
    assert [routes.pool(host, b"/") for host in ("dot.example.org", "a.example.net", "example.net")] == ["dot", "wild", "rest"]
