"""Who may use a route, and the file of its users."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.config.passwords import read_passwords
from prefork_lb.errors import ConfigError

HASH = "$2b$04$gIJRyS7jX8ZIfhpjIbuoZ.4PS6mrbSJtrrUUn0KAvQtOqbvkgEbA2"
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43


def told(tmp_path: Path, users: str, more: str = "", route: str = 'pool = "web"') -> list[str]:
    (tmp_path / "users").write_text(users)
    (tmp_path / "a.toml").write_text('[pools.web]\nservers = ["127.0.0.1:1"]\n[[routes]]\n'
                                     f'{route}\nbasic_auth = {{ file = "{tmp_path}/users"{more} }}\n')
    try:
        load(tmp_path / "a.toml")
    except ConfigError as exc:
        return [problem.partition("basic_auth")[2].replace(str(tmp_path), "") for problem in exc.problems]
    return []


def test_good_ones(tmp_path: Path) -> None:
    users = f"# the first\n\nann:{HASH}\r\nbob:{ARGON2}\nü ü:{HASH.replace('$2b$', '$2y$')}\n"
    assert told(tmp_path, users, ', realm = "a b\'s", field = "X-User"') == []
    assert told(tmp_path, users, route="respond = {}") == []
    assert list(read_passwords(str(tmp_path / "users"))) == [b"ann", b"bob", "ü ü".encode()]


@pytest.mark.parametrize(("users", "words"), [
    ("", ".file: /users: no user in it; expected a line `user:hash` for each"),
    ("ann", ".file: /users:1: no user and hash with a colon"),
    (f":{HASH}", "/users:1: no user and hash"),
    (f"a\x01:{HASH}", "/users:1: no user and hash"),
    (f"ann:{HASH}\n\nann:{HASH}", "/users:3: the user has a line already"),
    ("ann:secret", "/users:1: the password is no hash that can be checked; expected bcrypt"),
    ("ann:$apr1$abcdefgh$0123456789012345678901", "no hash that can be checked"),
    ("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "no hash that can be checked"),
    (f"ann:{HASH.replace('$04$', '$31$')}", "of cost 15 at most"),
    (f"ann:{ARGON2.replace('65536', '9999999')}", "no hash that can be checked"),
])
def test_bad_files_are_named_with_the_way_out(tmp_path: Path, users: str, words: str) -> None:
    problem, = told(tmp_path, users)
    assert words in problem and HASH not in problem


@pytest.mark.parametrize(("more", "words"), [
    (', realm = "a\\"b"', ".realm: 'a\"b' is no realm"),
    (', field = "X Y"', ".field: 'X Y' is no name of a field"),
    (', field = "Content-Length"', ".field: Content-Length is the balancer's own matter"),
])
def test_bad_values_are_named(tmp_path: Path, more: str, words: str) -> None:
    problem, = told(tmp_path, f"ann:{HASH}", more)
    assert words in problem


def told_of_forward(tmp_path: Path, forward: str) -> list[str]:
    (tmp_path / "a.toml").write_text('[pools.web]\nservers = ["127.0.0.1:1"]\n[[routes]]\npool = "web"\n'
                                     f"forward_auth = {{ {forward} }}\n")
    try:
        load(tmp_path / "a.toml")
    except ConfigError as exc:
        return [problem.partition("forward_auth")[2] for problem in exc.problems]
    return []


@pytest.mark.parametrize("forward", [
    'url = "http://127.0.0.1:9091"', 'url = "https://auth.example.org/verify?a=b"', 'url = "http://[::1]:9091/"',
    'url = "http://a:1/", fields = ["Remote-User"], timeout = 0.5, cache = 3600'])
def test_good_servers_that_decide(tmp_path: Path, forward: str) -> None:
    assert told_of_forward(tmp_path, forward) == []


@pytest.mark.parametrize(("forward", "words"), [
    ('url = "127.0.0.1:9091"', ".url: '127.0.0.1:9091' is no URL of a server"),
    ('url = "ftp://a:1/"', ".url"), ('url = "http:///verify"', ".url"), ('url = "http://me@a:1/"', ".url"),
    ('url = "http://a:1/#x"', ".url"), ('url = "http://a:1/x y"', ".url"), ('url = "http://a:99999/"', ".url"),
    ('url = "http://a:1/", fields = ["A", "X Y"]', ".fields[1]: 'X Y' is no name"),
    ('url = "http://a:1/", fields = ["Host"]', ".fields[0]: Host is the balancer's own matter"),
    ('url = "http://a:1/", timeout = 0', ".timeout"), ('url = "http://a:1/", cache = -1', ".cache"),
    ('fields = []', ".url: missing"),
])
def test_bad_servers_that_decide_are_named(tmp_path: Path, forward: str, words: str) -> None:
    problem, = told_of_forward(tmp_path, forward)
    assert words in problem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="/none: cannot be read: No such file"):
        read_passwords("/none")
