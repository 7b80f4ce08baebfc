"""`prefork-lb routes`."""
from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from prefork_lb.cli.main import main

TEXT = """[pools.web]
servers = ["127.0.0.1:1"]
[pools.api]
servers = ["127.0.0.1:2"]
[[routes]]
pool = "web"
[[routes]]
hosts = ["*.org", "*.example.org", "www.example.org"]
paths = ["/a", "/a/b", "~x$", "=/a"]
pool = "api"
[[routes]]
hosts = ["www.example.org"]
paths = ["/a"]
methods = ["POST"]
split = { web = 95, api = 5 }
failover = "api"
"""


def test_routes_are_listed_in_the_order_in_which_they_are_tried(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text(TEXT)
    result = CliRunner().invoke(main, ["routes", str(tmp_path / "lb.toml")])
    assert result.exit_code == 0
    assert "pool web (95) or api (5), else api" in result.output
    _, *lines = [line.split() for line in result.output.splitlines()]
    paths = [("=/a", "-"), ("~x$", "-"), ("/a/b", "-"), ("/a", "-")]
    assert [tuple(line[:3]) for line in lines] == [
        *(("www.example.org", *path) for path in paths[:3]), ("www.example.org", "/a", "POST"), ("www.example.org", "/a", "-"),
        *(("*.example.org", *path) for path in paths), *(("*.org", *path) for path in paths), ("any", "any", "-")]
    assert lines[3][-2:] == ["api", "routes[2]"]


def test_without_routes_the_pool_is_told(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text('[pools.web]\nservers = ["127.0.0.1:1"]\n')
    result = CliRunner().invoke(main, ["routes", str(tmp_path / "lb.toml")])
    assert (result.exit_code, result.output) == (0, "no routes: everything -> pool web\n")


def test_a_file_with_problems_exits_1(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text("x = 1\n")
    result = CliRunner().invoke(main, ["routes", str(tmp_path / "lb.toml")])
    assert result.exit_code == 1 and "unknown key" in result.output
