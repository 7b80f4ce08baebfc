"""What the page's files say, held against what they are about."""
from __future__ import annotations

import re
from pathlib import Path

from prefork_lb.shared.events import EventKind

ROOT = Path(__file__).parents[3]


def test_each_kind_of_event_has_a_title_on_the_page() -> None:
    (titles,) = re.findall(r"const TITLES = \{(.*?)\};", (ROOT / "prefork_lb/admin/static/feed.js").read_text(), re.DOTALL)
    assert sorted(re.findall(r'([a-z-]+)"?: "', titles)) == sorted(EventKind)


def test_each_kind_of_event_has_its_row_in_the_documentation() -> None:
    _, _, table = (ROOT / "docs/cli.md").read_text().partition("| kind | when |\n| --- | --- |\n")
    rows, _, _ = table.partition("\n\n")
    told = [kind for row in rows.splitlines() for kind in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(told) == sorted(EventKind)
