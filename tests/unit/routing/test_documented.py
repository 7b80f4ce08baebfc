"""The example of docs/routing.md: its configuration, and each line of its table."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.wire.head import HeadLimits, parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.worker import make_router

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
    route, _ = make_router(load(tmp_path / "lb.toml")).find(destination(head), head, client or "198.51.100.1")
    assert route.pool == pool
