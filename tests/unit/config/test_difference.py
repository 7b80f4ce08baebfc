"""What changed from one configuration to another, in words."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.difference import differences
from prefork_lb.config.load import load_file
from prefork_lb.config.model import Config

BEFORE = """
[pools.web]
servers = ["127.0.0.1:1", {address = "127.0.0.1:2", weight = 2}]
health = {headers = {Authorization = "one"}}
[pools.old]
servers = ["127.0.0.1:1"]
[[routes]]
pool = "web"
[[routes]]
paths = ["/a"]
pool = "old"
"""


@pytest.fixture
def load(tmp_path: Path) -> object:
    def from_text(text: str, name: str = "some.toml") -> Config:
        (tmp_path / name).write_text(text)
        return load_file(str(tmp_path / name))

    return from_text


def test_the_same_in_other_words_and_another_file_is_no_difference(load) -> None:  # type: ignore[no-untyped-def]
    other = BEFORE.replace('"127.0.0.1:1", {', '{address = "127.0.0.1:1", weight = 1}, {')
    assert differences(load(BEFORE), load(other, "other.toml")) == []


@pytest.mark.parametrize(("old", "new", "found"), [
    ('"127.0.0.1:1", {', "{", ["pool web: server 127.0.0.1:1: removed"]),
    ("weight = 2}", 'weight = 2}, "127.0.0.1:3"', ["pool web: server 127.0.0.1:3: added"]),
    ("weight = 2", "weight = 3, backup = true", ["pool web: server 127.0.0.1:2: weight: 2 -> 3",
                                                 "pool web: server 127.0.0.1:2: backup: false -> true"]),
    ('["127.0.0.1:1", {address = "127.0.0.1:2", weight = 2}]', '[{address = "127.0.0.1:2", weight = 2}, "127.0.0.1:1"]',
     ["pool web: servers are in another order"]),
    ("[pools.old]", "[pools.more]\nservers = ['127.0.0.1:8', '127.0.0.1:9']\n[pools.old]", ["pool more: added, 2 servers"]),
    ("pools.old]", "pools.new]", ["pool old: removed", "pool new: added, 1 server", 'routes[1].pool: "old" -> "new"']),
    ("[pools.web]", "[proxy.timeouts]\nconnect = 5\n[pools.web]", ["proxy.timeouts.connect: 3.0 -> 5.0"]),
    ("[pools.web]", "[proxy]\ntrusted_proxies = ['10.0.0.0/8']\n[pools.web]", ['proxy.trusted_proxies: [] -> ["10.0.0.0/8"]']),
    ("health = {", "queue = {}\nhealth = {", ["pools.web.queue: added"]),
    ('health = {headers = {Authorization = "one"}}\n', "", ["pools.web.health: removed"]),
    ('"one"', '"two"', ["pools.web.health.headers: changed"]),  # and no password is shown
    ('[[routes]]\npaths = ["/a"]\npool = "old"\n', "", ["routes[1]: removed"]),
    ('pool = "web"\n', 'pool = "web"\nhosts = ["a.example"]\n', ['routes[0].hosts: [] -> ["a.example"]']),
])
def test_each_difference_is_a_line(load, old: str, new: str, found: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert BEFORE.count(old) == 1
    after = BEFORE.replace(old, new)
    if "pools.new" in after:
        after = after.replace('pool = "old"', 'pool = "new"')
    assert differences(load(BEFORE), load(after)) == found
