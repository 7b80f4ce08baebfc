"""The section `[admin]` and the file of its tokens."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.config.tokens import Token, read_tokens
from prefork_lb.errors import ConfigError

POOL = '[pools.web]\nservers = ["127.0.0.1:8001"]\n'
GOOD = "0123456789abcdef"


def problems(folder: Path, admin: str) -> list[str]:
    file = folder / "a.toml"
    file.write_text(POOL + "[admin]\n" + admin)
    try:
        load(file)
    except ConfigError as exc:
        return [problem.removeprefix(f"{file}:") for problem in exc.problems]
    return []


@pytest.mark.parametrize("bind", ["0.0.0.0:9900", "[::]:9900", "10.0.0.1:9900", "lb.example:9900"])
def test_a_listener_beyond_this_host_needs_tokens(tmp_path: Path, bind: str) -> None:
    (problem,) = problems(tmp_path, f'bind = "{bind}"\n')
    assert problem.startswith("4: admin.bind: ") and "token_file" in problem
    (tmp_path / "tokens").write_text(f"reader {GOOD}\n")
    assert problems(tmp_path, f'bind = "{bind}"\ntoken_file = "{tmp_path / "tokens"}"\n') == []


@pytest.mark.parametrize("bind", ["127.0.0.1:9900", "127.8.0.1:9900", "[::1]:9900", "localhost:9900", "unix:/run/admin.sock"])
def test_a_listener_of_this_host_needs_none(tmp_path: Path, bind: str) -> None:
    assert problems(tmp_path, f'bind = "{bind}"\n') == []


@pytest.mark.parametrize(("admin", "expected"), [
    ('bind = "http://127.0.0.1:9900"', "4: admin.bind: "),
    ('bind = 9900', "4: admin.bind: "),
    ('bind = "127.0.0.1:9900"\ntoken_file = "/none"', "5: admin.token_file: /none: cannot be read"),
    ('bind = "127.0.0.1:9900"\nhosts = ["lb.example", "http://lb"]', "5: admin.hosts[1]: "),
    ('bind = "127.0.0.1:8001"', "2: pools.web.servers[0]: '127.0.0.1:8001' is admin.bind"),
])
def test_what_cannot_work_is_told_with_its_place(tmp_path: Path, admin: str, expected: str) -> None:
    (problem,) = problems(tmp_path, admin + "\n")
    assert problem.startswith(expected)


def test_tokens_have_a_role_and_may_have_a_name(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# of this host\n\noperator {GOOD}1 ann\n  reader {GOOD}2\n")
    first, second = read_tokens(str(file))
    assert first == Token("operator", f"{GOOD}1".encode(), "ann")
    assert second == Token("reader", f"{GOOD}2".encode(), "reader")


@pytest.mark.parametrize(("text", "expected"), [
    ("", "no token in it"),
    ("# nothing\n", "no token in it"),
    ("owner 0123456789abcdef\n", ":1: not a token's line"),
    ("operator\n", ":1: not a token's line"),
    ("operator 0123456789abcdef ann smith\n", ":1: not a token's line"),
    ("operator short\n", ":1: the token has 5 characters"),
    ("operator 0123456789abcdé0123\n", ":1: the token has"),
    ("operator 0123456789abcdef\nreader 0123456789abcdef\n", ":2: the token is there already"),
    (f"operator 0123456789abcdef {'a' * 41}\n", ":1: the name has 41 characters"),
])
def test_a_bad_file_of_tokens_is_told_by_line_and_without_the_token(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_tokens(str(file))
    assert expected in str(raised.value) and "abcd" not in str(raised.value)
