"""The examples of docs/routing.md and docs/access.md: their configurations, and each line of the table."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.routes import make_router

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "routing.md").read_text()
EXAMPLES = [part.partition("```")[0] for page in (PAGE, (DOCS / "access.md").read_text()) for part in page.split("```toml\n")[1:]]
FILES = {
    "/etc/prefork-lb/maintenance.html": "",
    "/etc/prefork-lb/later.html": "",
    "/etc/prefork-lb/error.html": "",
    "/etc/prefork-lb/htpasswd": "ann:$2b$04$gIJRyS7jX8ZIfhpjIbuoZ.4PS6mrbSJtrrUUn0KAvQtOqbvkgEbA2",
}
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


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_good_configuration(tmp_path: Path, number: int) -> None:
    text = EXAMPLES[number]
    for path, content in FILES.items():
        (tmp_path / Path(path).name).write_text(content)
    (tmp_path / "challenges").mkdir()
    for path in (*FILES, "/var/lib/acme/challenges"):
        text = text.replace(path, str(tmp_path / Path(path).name))
    pools = "" if "[pools." in text else "".join(f'[pools.{name}]\nservers = ["127.0.0.1:1"]\n' for name in ("web", "api"))
    rest = "" if "[[routes]]" in text else '[[routes]]\npool = "web"\n'
    (tmp_path / "lb.toml").write_text(pools + text + rest)
    make_router(load(tmp_path / "lb.toml"))
