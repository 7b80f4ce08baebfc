"""The example of docs/routing.md: its configuration, and each line of its table."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits, parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.routes import make_router

PAGE = (Path(__file__).parents[3] / "docs/routing.md").read_text()
EXAMPLE = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
LINES = re.findall(r"^\| `(\w+) http://([\w.]+)(/\S*)(?: (\w+: .*?))?(?: from ([\d.]+))?` \| (\w+) \|", PAGE, re.MULTILINE)


def test_the_table_was_found() -> None:
    assert EXAMPLE is not None and len(LINES) == 8


@pytest.mark.parametrize(("method", "host", "path", "field", "client", "pool"), LINES)
def test_a_request_takes_the_route_that_the_page_says(
    tmp_path: Path, method: str, host: str, path: str, field: str, client: str, pool: str
) -> None:
    assert EXAMPLE is not None
    (tmp_path / "lb.toml").write_text(EXAMPLE[1])
    block = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n" + (f"{field}\r\n" if field else "") + "\r\n"
    head = parse_request(block.encode(), HeadLimits(32768, 8192, 100))
    route, _ = make_router(load(tmp_path / "lb.toml")).find(destination(head), head,
                                                               ClientInfo(client or "198.51.100.1", b"http", 80, False))
    assert route.pool == pool


@pytest.mark.parametrize("number", range(PAGE.count("```toml")))
def test_every_example_is_a_good_configuration(tmp_path: Path, number: int) -> None:
    text = PAGE.split("```toml\n")[number + 1].partition("```")[0]
    for path in ("/etc/prefork-lb/maintenance.html", "/var/lib/acme/challenges"):
        here = tmp_path / Path(path).name
        here.write_text("") if here.suffix else here.mkdir()
        text = text.replace(path, str(here))
    pools = "" if "[pools." in text else "".join(f'[pools.{name}]\nservers = ["127.0.0.1:1"]\n' for name in ("web", "api"))
    rest = "" if "[[routes]]" in text else '[[routes]]\npool = "web"\n'
    (tmp_path / "lb.toml").write_text(pools + text + rest)
    make_router(load(tmp_path / "lb.toml"))
