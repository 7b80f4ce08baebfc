"""What a route may say, and what is told of two of them."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import find_and_load
from prefork_lb.config.routes import route_in_words
from prefork_lb.errors import ConfigError

POOL = '[pools.web]\nservers = ["127.0.0.1:1"]\n'


def told(tmp_path: Path, *routes: str) -> list[str]:
    """The problems of a file with these routes; without one, what it warns of."""
    file = tmp_path / "a.toml"
    file.write_text(POOL + "".join(f'[[routes]]\npool = "web"\n{route}\n' for route in routes))
    try:
        _, notices = find_and_load(file)
    except ConfigError as exc:
        return [problem.removeprefix(f"{file}:") for problem in exc.problems]
    return [f"warning: {notice.removeprefix(f'{file}:')}" for notice in notices]


@pytest.mark.parametrize("route", [
    'hosts = ["a.example.org", "*.example.org"]\npaths = ["/a", "/b/", "=/robots.txt", "~^/c/[0-9]+$"]',
    'methods = ["GET", "PROPFIND"]\nfields = { X-Version = "2", Accept = "~json" }\ncookies = { beta = "*" }\nquery = { a = "" }',
    'clients = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]',
    'paths = ["/caf%C3%A9", "/"]',
])
def test_good_ones(tmp_path: Path, route: str) -> None:
    assert told(tmp_path, route) == []


@pytest.mark.parametrize(("route", "words"), [
    ('paths = ["a"]', "'a' is no path"),
    ('paths = ["=a"]', "'=a' is no path"),
    ('paths = ["/a?b"]', "'/a?b' is no path"),
    ('paths = ["~(["]', "no regular expression"),
    ('paths = ["~(a)\\\\1"]', "no regular expression"),  # RE2 has no back references: they cost exponential time
    ('paths = ["/a/../b"]', "is never found, for paths are compared in their normal form; expected '/b'"),
    ('paths = ["/a//b"]', "expected '/a/b'"),
    ('paths = ["/%61"]', "expected '/a'"),
    ('methods = ["get"]', "'get' is no method; expected one like GET, in capitals"),
    ('methods = ["G T"]', "'G T' is no method"),
    ('fields = { "X Y" = "1" }', "'X Y' is no name of a header field"),
    ('fields = { X = "~(" }', "no regular expression"),
    ('cookies = { "a b" = "1" }', "'a b' is no name of a cookie"),
    ('query = { "a=b" = "1" }', "'a=b' is no name of a parameter"),
    ('clients = ["10.0.0.0/33"]', "'10.0.0.0/33' is neither an address nor a network"),
])
def test_bad_ones_are_named_with_the_way_out(tmp_path: Path, route: str, words: str) -> None:
    problem, = told(tmp_path, route)
    assert words in problem and problem.startswith("5: routes[0].")


@pytest.mark.parametrize(("keys", "words"), [
    ('split = { web = 1, other = 1 }\nsplit_cookie = "release"\nfailover = "away"',
     ['has mode = "redirect", which has no failover']),
    ("split = { web = 1, wbe = 1 }", ["split.wbe: there is no pool 'wbe'", "did you mean web"]),
    ("split = { web = 0, other = 0 }", ["every pool has the weight 0; at least one must have more"]),
    ("split = { web = -1, other = 1 }", ["split.web"]),
    ('pool = "web"\nsplit = { web = 1 }', ["the route has a pool already; expected one of pool, split, redirect and respond"]),
    ('pool = "web"\nsplit_cookie = "a"', ["has no meaning without split"]),
    ('split = { web = 1 }\nsplit_cookie = "a b"', ["'a b' is no name of a cookie"]),
    ('split = { web = 1 }\nsplit_cookie = "own"', ["is the cookie of sticky of the pool other; expected another name"]),
    ('pool = "web"\nfailover = "web"', ["is the route's own pool; expected another one"]),
    ('pool = "web"\nfailover = "wbe"', ["failover: there is no pool 'wbe'"]),
    ('pool = "web"\nmirror = { pool = "wbe" }', ["mirror.pool: there is no pool 'wbe'"]),
    ('pool = "web"\nmirror = { pool = "other", share = 1.5 }', ["mirror.share"]),
    ('pool = "web"\nmirror = { pool = "away" }', ['the pool away has mode = "redirect", which has no mirror']),
    ('redirect = "/"\ntimeouts = { idle = 1 }', ["timeouts: has no meaning without pool or split"]),
    ('pool = "web"\ntimeouts = { response = -1 }', ["timeouts.response"]),
    ('pool = "web"\nerror_pages = { 399 = "/etc/passwd" }', ["error_pages.399: '399' is not in 400..599"]),
    ('pool = "web"\nerror_pages = { all = "/etc/passwd" }', ["error_pages.all: 'all' is no status"]),
    ('pool = "web"\nerror_pages = { 502 = "/nowhere/502.html" }', ["'/nowhere/502.html' cannot be read: No such file"]),
    ('pool = "web"\ncors = { origins = ["https://a.org/"] }', ["cors.origins[0]: 'https://a.org/' is no origin"]),
    ('pool = "web"\ncors = { origins = ["https://A.org"] }', ["in lower case"]),
    ('pool = "web"\ncors = { origins = ["null"] }', ["'null' is no origin"]),
    ('pool = "web"\ncors = { origins = [] }', ["empty; no page could use the route"]),
    ('pool = "web"\ncors = { origins = ["*"], credentials = true }', ["browsers send none to a site that lets in"]),
    ('pool = "web"\ncors = { origins = ["*"], methods = ["a b"] }', ["cors.methods[0]: 'a b' is no name of a method"]),
    ('pool = "web"\nscheme = "http"\nhttps = {}', ["no request over https takes the route"]),
    ('redirect = "/"\nmirror = { pool = "web" }', ["mirror: has no meaning without pool or split"]),
    ('redirect = "/"\nfailover = "web"', ["has no meaning without pool or split"]),
    ('pool = "away"\nbandwidth = { per_second = 1024 }',
     ["bandwidth: ", 'has no meaning with mode = "redirect" in the pool', "leave it out"]),
    ('split = { away = 1 }\ntimeouts = { idle = 1 }', ["timeouts: has no meaning with mode"]),
    ('pool = "away"\nrequest = { set = { X = "1" } }', ["request: has no meaning with mode"]),
])
def test_what_is_wrong_with_the_pools_of_a_route_is_told(tmp_path: Path, keys: str, words: list[str]) -> None:
    (tmp_path / "a.toml").write_text(
        POOL + '[pools.other]\nservers = ["127.0.0.1:2"]\n[pools.other.sticky]\ncookie = "own"\n'
        '[pools.away]\nmode = "redirect"\nservers = [{ address = "127.0.0.1:3", public = "https://a" }]\n'
        f"[[routes]]\n{keys}\n")
    with pytest.raises(ConfigError) as caught:
        find_and_load(tmp_path / "a.toml")
    problem, = caught.value.problems
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize("keys", [
    'pool = "away"\nbody_limit = 9\npath = "/x{path}"\nresponse = { set = { X = "1" } }\nconcurrency = { limit = 1 }',
    'split = { web = 1, away = 1 }\nbandwidth = { per_second = 1024 }\ntimeouts = { idle = 1 }'])
def test_a_pool_that_redirects_leaves_a_route_what_has_a_meaning(tmp_path: Path, keys: str) -> None:
    (tmp_path / "a.toml").write_text(
        POOL + '[pools.away]\nmode = "redirect"\nservers = [{ address = "127.0.0.1:3", public = "https://a" }]\n'
        f"[[routes]]\n{keys}\n")
    find_and_load(tmp_path / "a.toml")


def test_two_routes_that_ask_for_the_same_are_an_error(tmp_path: Path) -> None:
    routes = ('hosts = ["a.org", "B.org"]\nfields = { X = "1", Y = "2" }', 'hosts = ["b.org."]\nfields = { y = "2", x = "1" }')
    assert told(tmp_path, *routes) == [
        "7: routes[1]: asks for the same as routes[0] at b.org., any path: one of the two would never be used"]


def test_two_routes_of_which_none_is_more_specific_are_warned_of(tmp_path: Path) -> None:
    warned = told(tmp_path, 'paths = ["/a"]\nfields = { Y = "1" }', 'paths = ["/a"]\nfields = { X = "1" }')
    assert warned == [
        "warning: 3: routes[0]: asks for as much as routes[1] at any host, /a: a request that meets both goes by routes[1]"]


@pytest.mark.parametrize("routes", [
    ('paths = ["/a"]', 'paths = ["/a/"]'),  # the longer one
    ('fields = { Y = "1" }', 'fields = { X = "1" }\nmethods = ["GET"]'),  # the one that asks for more
    ('hosts = ["a.org"]', 'hosts = ["*.org"]'),
    ('methods = ["GET"]', 'methods = ["PUT", "POST"]'),  # no request meets both
])
def test_no_warning_where_one_is_more_specific_or_no_request_meets_both(tmp_path: Path, routes: tuple[str, str]) -> None:
    assert told(tmp_path, *routes) == []


def test_a_route_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(POOL + '''[[routes]]
pool = "web"
hosts = ["a.org"]
methods = ["GET", "HEAD"]
fields = { X-Version = "2" }
cookies = { beta = "*" }
clients = ["10.0.0.0/8"]
''')
    config, _ = find_and_load(tmp_path / "a.toml")
    assert route_in_words(config.routes[0]) == "a.org; any path; GET, HEAD; field X-Version: 2; cookie beta; from 10.0.0.0/8"


def told_of(tmp_path: Path, route: str) -> list[str]:
    """The problems of a file with a route that need not have the pool."""
    (tmp_path / "a.toml").write_text(POOL + f"[[routes]]\n{route}\n")
    try:
        find_and_load(tmp_path / "a.toml")
    except ConfigError as exc:
        return [problem.partition("routes[0]")[2] for problem in exc.problems]
    return []


@pytest.mark.parametrize("route", [
    'redirect = "https://example.org/new/{rest}"\nredirect_status = 308',
    'redirect = "https://{host}{path}{query}"\nscheme = "http"',
    'redirect = "/login"',
    'respond = { status = 503, body = "down", type = "text/html", fields = { Retry-After = "60" } }',
    'respond = { file = "/etc/hostname" }',
    'respond = { folder = "/etc" }',
    'respond = { status = 204 }',
    'pool = "web"\nrate = { per_second = 0.5, burst = 3, key = "cookie:a" }',
    'pool = "web"\nclient_certificate = true\nrequest = { set = { X-A = "{tls_subject}" } }',
    'pool = "web"\nconcurrency = { limit = 2, key = "query:a" }',
    'pool = "web"\nallow = ["10.0.0.0/8"]\ndeny = ["10.1.0.0/16"]\npath = "/{rest}"\nbody_limit = 1000',
    'pool = "web"\nrequest = { set = { Host = "{host}", X-A = "a b" }, remove = ["Cookie"] }\nresponse = { add = { X-B = "" } }',
])
def test_good_actions(tmp_path: Path, route: str) -> None:
    assert told_of(tmp_path, route) == []


@pytest.mark.parametrize(("route", "words"), [
    ("", ".pool: missing; a route has a pool, a split, a redirect or a respond"),
    ('pool = "web"\nredirect = "/x"', ".redirect: the route has a pool already"),
    ('redirect = "/x"\nrespond = {}', ".respond: the route has a redirect already"),
    ('redirect = "example.org"', ".redirect: 'example.org' is no place to send clients to"),
    ('redirect = "javascript://x"', "is no place to send clients to"),
    ('redirect = "https://example.org{rest}"', "the client could choose the host"),
    ('redirect = "https://example.org/{nothing}"', "there is no {nothing}"),
    ('redirect = "/a b"', "is no place to send clients to"),
    ('redirect = "/x"\nredirect_status = 303', ".redirect_status"),
    ('pool = "web"\nredirect_status = 308', ".redirect_status: has no meaning without redirect"),
    ('redirect = "/x"\npath = "/y"', ".path: has no meaning without pool"),
    ('respond = {}\nbody_limit = 1', ".body_limit: has no meaning without pool"),
    ('respond = {}\nbandwidth = { per_second = 1024 }', ".bandwidth: has no meaning without pool"),
    ('pool = "web"\nbandwidth = { per_second = 1000 }', ".bandwidth.per_second: 1000 is not in 1024..1099511627776"),
    ('pool = "web"\npath = "x"', ".path: 'x' is no path"),
    ('pool = "web"\npath = "{rest}"', "is no path"),
    ('pool = "web"\nallow = ["x"]', ".allow[0]: 'x' is neither an address nor a network"),
    ('pool = "web"\ndeny = ["10.0.0.0/33"]', ".deny[0]: "),
    ('pool = "web"\nrequest = { set = { "Content-Length" = "1" } }', "frames the message"),
    ('pool = "web"\nrequest = { remove = ["Connection"] }', ".request.remove[0]: Connection frames the message"),
    ('pool = "web"\nresponse = { add = { "X Y" = "1" } }', "'X Y' is no name of a field"),
    ('pool = "web"\nresponse = { add = { X = "a\\nb" } }', "is no value of a field"),
    ('pool = "web"\nresponse = { add = { X = "{nothing}" } }', "there is no {nothing}"),
    ('respond = { file = "/none" }', ".respond.file: '/none' cannot be read: No such file"),
    ('respond = { folder = "/none" }', ".respond.folder: '/none' is no folder"),
    ('respond = { body = "x", file = "/etc/hostname" }', ".respond.file: the answer has a body already"),
    ('respond = { status = 204, body = "x" }', "an answer with 204 has no content"),
    ('respond = { folder = "/etc", status = 404 }', ".respond.status: has no meaning with folder"),
    ('respond = { status = 100 }', ".respond.status"),
    ("pool = \"web\"\nrate = {}", ".rate.per_second: missing"),
    ('pool = "web"\nrate = { per_second = 0 }', ".rate.per_second"),
    ('pool = "web"\nrate = { per_second = 1, burst = 0 }', ".rate.burst"),
    ('pool = "web"\nrate = { per_second = 1, key = "uri" }', ".rate.key: 'uri' is no key"),
    ('pool = "web"\nconcurrency = { limit = 1, key = "uri" }', ".concurrency.key: 'uri' is no key"),
    ('pool = "web"\npath = "/{tls_subject}"', ".path: '/{tls_subject}': {tls_subject} is for fields only"),
    ('redirect = "/{tls_fingerprint}"', ".redirect: '/{tls_fingerprint}': {tls_fingerprint} is for fields only"),
    ('pool = "web"\nconcurrency = { limit = 0 }', ".concurrency.limit"),
    ('respond = {}\nconcurrency = { limit = 1 }', ".concurrency: has no meaning without pool"),
    ('pool = "web"\nrate = { per_second = 1, key = "header:" }', ".rate.key: 'header:' is no key"),
])
def test_bad_actions_are_named_with_the_way_out(tmp_path: Path, route: str, words: str) -> None:
    assert any(words in problem for problem in told_of(tmp_path, route))
