"""What `[pools.NAME.sticky]` may say, and what is told when it cannot work."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.errors import ConfigError

SERVERS = 'servers = [{ address = "127.0.0.1:8001", route = "a" }, { address = "127.0.0.1:8002", route = "b" }]\n'


def text(sticky: str, servers: str = SERVERS, more: str = "") -> str:
    return f"[pools.web]\n{servers}[pools.web.sticky]\n{sticky}\n{more}"


def problem(tmp_path: Path, content: str) -> str:
    file = tmp_path / "a.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return str(caught.value).replace(f"{file}:", "")


@pytest.mark.parametrize("sticky", [
    "", 'mode = "cookie"\ncookie = "id"\npath = "/app"\ndomain = "example.org"\nmax_age = 60\nidle = 5\nhttp_only = false',
    'mode = "route"\ncookie = "JSESSIONID"\nparameter = "jsessionid"', 'on_failure = "strict"\ndrain_timeout = 60',
    'cookie = "__Host-lb"\nsecure = "always"'])
def test_good_ones(tmp_path: Path, sticky: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text(sticky))
    assert load(file).pools["web"].sticky is not None


@pytest.mark.parametrize(("sticky", "told"), [
    ('mode = "coockie"', "sticky.mode: 'coockie' is no mode; expected one of cookie, route, learn, source, header:NAME; did you"),
    ('mode = "header"', "is no mode"), ('mode = "header:a b"', "'a b' is no name of a header field"),
    ('mode = "route"\ncookie = "a"\nidle = 5', 'idle: has no meaning in the mode "route"; it belongs to "cookie" or "learn"'),
    ('parameter = "a"', 'parameter: has no meaning in the mode "cookie"; it belongs to "route"'),
    ('mode = "source"\nsecret_file = "/x"', 'secret_file: has no meaning in the mode "source"'),
    ('cookie = "a b"', "'a b' is no name of a cookie"), ('mode = "route"', "needs the name of the application's cookie"),
    ('mode = "learn"', "needs the name of the application's cookie or of a header field"),
    ('mode = "source"\ndrain_timeout = 5', "all leave a drained server at once"),
    ('same_site = "none"\nsecure = "never"', "browsers drop such a cookie"), ('cookie = "__Host-lb"', "only with Secure"),
    ('path = "a;b"', "sticky.path"), ('secret_file = "/nowhere/secret"', "/nowhere/secret: cannot be read: No such file"),
    ('on_failure = "wait"', '"wait" needs a queue to wait in; add [pools.web.queue]')])
def test_bad_ones(tmp_path: Path, sticky: str, told: str) -> None:
    assert told in problem(tmp_path, text(sticky))


@pytest.mark.parametrize(("content", "told"), [
    (b"short\n", "secret:1: the secret has 5 characters; expected 16 or more"), (b"\n\n", "no secret in it"),
    (b"0123456789abcdef\n\n0123456789abcdef\n", "secret:3: the same secret as in line 1")])
def test_bad_secrets_are_told_with_their_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert told in problem(tmp_path, text(f'secret_file = "{tmp_path}/secret"'))


def test_routes_are_names_and_each_is_one_servers(tmp_path: Path) -> None:
    twice = problem(tmp_path, text("", SERVERS.replace('"b"', '"a"')))
    assert "servers[1].route: 'a' is the route of servers[0] already" in twice
    assert "'a.b' is no route" in problem(tmp_path, text("", SERVERS.replace('"b"', '"a.b"')))
    assert "no server of the pool has a route" in problem(
        tmp_path, text('mode = "route"\ncookie = "a"', 'servers = ["127.0.0.1:8001"]\n'))


def test_cookies_of_two_pools_must_not_overwrite_each_other(tmp_path: Path) -> None:
    two = text("", more=text("").replace("pools.web", "pools.api") + '[[routes]]\npool = "web"\n')
    told = problem(tmp_path, two)
    assert "pools.api.sticky: the cookie 'prefork_lb' of this pool and of 'web' would overwrite each other" in told
    file = tmp_path / "b.toml"
    file.write_text(text('path = "/a"', more=text("").replace("pools.web", "pools.api") + '[[routes]]\npool = "web"\n'))
    assert load(file)
