"""Routes: the most specific one wins, whatever the order in the file."""
from __future__ import annotations

import itertools

import pytest

from prefork_lb.errors import BadRequest, NoRoute
from prefork_lb.routing.match import Route, Router
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from tests.support.calls import calls_of

ANY_HOST: tuple[str, ...] = ()
LIMITS = HeadLimits(32768, 8192, 100)


def pool_of(router: Router, host: str, path: str, peer: str = "192.0.2.1", method: str = "GET", fields: str = "") -> str:
    return find(router, host, path, peer, method, fields)[0].pool


def find(
    router: Router, host: str, path: str, peer: str = "192.0.2.1", method: str = "GET", fields: str = ""
) -> tuple[Route, bytes]:
    head = parse_request(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode(), LIMITS)
    return router.find(destination(head), head, ClientInfo(peer, b"http", 80, False))


SITES = (
    Route("rest"),
    Route("status", paths=("/status",)),
    Route("wild", ("*.example.org",)),
    Route("deep", ("*.deep.example.org",)),
    Route("www", ("www.example.org", "example.org")),
    Route("api", ("www.example.org",), ("/api/", "/v2/api/")),
    Route("admin", ("www.example.org",), ("/api/admin/",)),
    Route("robots", ("www.example.org",), ("=/robots.txt",)),
    Route("php", ("www.example.org",), (r"~\.php$",)),
    Route("feed", ("www.example.org",), (r"~^/api/.*\.php$",)),
)

FOUND = [
    ("www.example.org", "/", "www"),
    ("example.org", "/", "www"),
    ("a.example.org", "/", "wild"),
    ("a.b.example.org", "/", "wild"),
    ("a.deep.example.org", "/", "deep"),  # the longer wildcard
    ("deep.example.org", "/", "wild"),  # a wildcard stands for one label at least
    ("xexample.org", "/", "rest"),
    ("other.net", "/x", "rest"),
    ("other.net", "/status", "status"),
    ("other.net", "/status/x", "status"),
    ("other.net", "/status?x", "status"),
    ("other.net", "/statuses", "rest"),  # a prefix ends at the border of a segment
    ("other.net", "/Status", "rest"),
    ("www.example.org", "/status", "www"),  # the host goes before the path
    ("www.example.org", "/api/x", "api"),
    ("www.example.org", "/api/", "api"),
    ("www.example.org", "/v2/api/x", "api"),
    ("www.example.org", "/api/admin/x", "admin"),  # the longer prefix
    ("www.example.org", "/api", "www"),  # "/api/" is what is below
    ("www.example.org", "/robots.txt", "robots"),
    ("www.example.org", "/robots.txt?x=1", "robots"),
    ("www.example.org", "/robots.txt/x", "www"),
    ("www.example.org", "/a.php", "php"),
    ("www.example.org", "/api/admin/a.php", "feed"),  # the longer pattern; patterns before prefixes
    ("www.example.org", "/a.php?b.html", "php"),  # the query is no part of the path
    ("www.example.org", "/a/%61/../../api/x", "api"),  # the normal form
    ("www.example.org", "/x//../api/x", None),
    ("www.example.org", "/%61pi//admin/x", "admin"),
]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("host", "path", "pool"), FOUND)
def test_the_most_specific_route_is_found(host: str, path: str, pool: str | None, order: int) -> None:
    router = Router(SITES[::order])
    if pool is None:
        with pytest.raises(BadRequest):
            pool_of(router, host, path)
    else:
        assert pool_of(router, host, path) == pool


CONDITIONS = (
    Route("rest"),
    Route("post", methods=("POST",)),
    Route("v2", fields={"X-Version": "2"}),
    Route("beta", cookies={"beta": "*"}, query={"debug": "~^[01]$"}),
    Route("inside", clients=("10.0.0.0/8", "2001:db8::/32")),
    Route("canary", methods=("GET", "HEAD"), fields={"X-Version": "~^3"}, clients=("10.0.0.0/8",)),
)


@pytest.mark.parametrize(("method", "path", "fields", "peer", "pool"), [
    ("GET", "/", "", "192.0.2.1", "rest"),
    ("POST", "/", "", "192.0.2.1", "post"),
    ("PUT", "/", "", "192.0.2.1", "rest"),
    ("GET", "/", "X-Version: 2\r\n", "192.0.2.1", "v2"),
    ("GET", "/", "x-version: 1\r\nX-VERSION: 2\r\n", "192.0.2.1", "v2"),  # one of them is enough
    ("GET", "/", "X-Version: 22\r\n", "192.0.2.1", "rest"),
    ("GET", "/?debug=1", "Cookie: a=b; beta=\r\n", "192.0.2.1", "beta"),
    ("GET", "/?debug=2", "Cookie: beta=1\r\n", "192.0.2.1", "rest"),
    ("GET", "/?debug=2&debug=0", "Cookie: beta=1\r\n", "192.0.2.1", "beta"),
    ("GET", "/?xdebug=1", "Cookie: beta=1\r\n", "192.0.2.1", "rest"),
    ("GET", "/", "", "10.1.2.3", "inside"),
    ("GET", "/", "", "::ffff:10.1.2.3", "inside"),
    ("GET", "/", "", "2001:db8::5", "inside"),
    ("GET", "/", "", "", "rest"),
    ("GET", "/", "X-Version: 3.1\r\n", "10.1.2.3", "canary"),
    ("DELETE", "/", "X-Version: 3.1\r\n", "10.1.2.3", "inside"),
])
@pytest.mark.parametrize("order", [1, -1])
def test_a_route_with_more_conditions_goes_before_one_with_fewer(
    method: str, path: str, fields: str, peer: str, pool: str, order: int
) -> None:
    assert pool_of(Router(CONDITIONS[::order]), "h", path, peer, method, fields) == pool


def test_equally_specific_routes_are_ordered_by_their_conditions_and_not_by_the_file() -> None:
    routes = [Route("x", fields={"X": "1"}), Route("y", fields={"Y": "1"}), Route("get", methods=("GET",))]
    for order in itertools.permutations(routes):
        assert pool_of(Router(order), "h", "/", fields="X: 1\r\nY: 1\r\n") == "x"


def test_the_client_is_who_trusted_proxies_tell() -> None:
    routes = [Route("rest"), Route("inside", clients=("10.0.0.0/8",))]
    told = "X-Forwarded-For: 10.0.0.1\r\n"
    assert pool_of(Router(routes, is_trusted=lambda address: address == "192.0.2.1"), "h", "/", fields=told) == "inside"
    assert pool_of(Router(routes), "h", "/", fields=told) == "rest"


def test_a_host_whose_paths_do_not_match_falls_back_to_the_wildcard_and_then_to_any() -> None:
    router = Router([Route("exact", ("a.example.org",), ("/x",)), Route("wild", ("*.example.org",), ("/y",)),
                     Route("any", ANY_HOST, ("/z",))])
    assert [pool_of(router, "a.example.org", path) for path in ("/x", "/y", "/z")] == ["exact", "wild", "any"]


def test_a_route_whose_conditions_are_not_met_is_passed_over_for_a_shorter_prefix() -> None:
    router = Router([Route("api", paths=("/api",)), Route("write", paths=("/api/users",), methods=("POST",))])
    assert [pool_of(router, "h", "/api/users/1", method=method) for method in ("GET", "POST")] == ["api", "write"]


def test_names_in_the_configuration_may_have_capitals_and_a_last_dot() -> None:
    router = Router([Route("one", ("WWW.Example.ORG.",)), Route("two", ("*.Example.NET.",)), Route("rest")])
    assert [pool_of(router, host, "/") for host in ("www.example.org", "a.example.net", "example.net", "www.example.org.")] == [
        "one", "two", "rest", "one"]


def test_without_a_matching_route_the_error_names_host_and_path_and_is_short() -> None:
    with pytest.raises(NoRoute, match=r"no route for host 'b.org' and path b'/x") as caught:
        pool_of(Router([Route("one", ("a.org",))]), "b.org", "/" + "x" * 5000)
    assert caught.value.status == 404 and len(str(caught.value)) < 200
    with pytest.raises(NoRoute):
        pool_of(Router([]), "a", "/")


def test_the_options_target_of_the_whole_server_reaches_a_route_without_paths() -> None:
    """OPTIONS * has the path `*`, which no prefix that begins with / matches."""
    assert pool_of(Router([Route("one"), Route("two", paths=("/",))]), "h", "*", method="OPTIONS") == "one"


def test_the_server_gets_the_path_that_was_compared() -> None:
    router = Router([Route("admin", paths=("/admin",)), Route("rest")])
    route, target = find(router, "h", "/public/../%61dmin/x?y=../%61")
    assert (route.pool, target) == ("admin", b"/admin/x?y=../%61")
    assert find(router, "h", "/public//x")[1] == b"/public//x"


def test_a_doubtful_path_is_refused_where_routes_compare_paths_and_only_there() -> None:
    by_path, by_host = [Route("a", paths=("/a",)), Route("rest")], [Route("a", ("h",)), Route("rest")]
    with pytest.raises(BadRequest, match="an escaped slash.*proxy.doubtful_paths"):
        pool_of(Router(by_path), "h", "/a%2fb")
    assert find(Router(by_path, passes_doubtful=True), "h", "/a%2fb") == (Route("rest"), b"/a%2Fb")
    assert find(Router(by_host), "h", "/x/../a%2fb") == (by_host[0], b"/x/../a%2fb")


def test_the_cost_of_a_match_does_not_depend_on_the_number_of_routes() -> None:
    def calls(number: int) -> int:
        """How many functions are called for two requests to one of so many sites."""
        sites = [Route(str(n), (f"h{n}.example.org", f"*.h{n}.example.org"), (f"/p{n}/",)) for n in range(number)]
        router = Router([*sites, Route("rest")])
        found: list[str] = []
        count = calls_of(lambda: found.extend(pool_of(router, "h5.example.org", path) for path in ("/p5/x", "/p6/x")))
        assert found == ["5", "rest"]
        return count

    calls(10)  # what is remembered by address, host and the like is remembered from here
    assert calls(1000) == calls(10)
