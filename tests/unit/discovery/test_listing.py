"""The formats of lists of servers."""
from __future__ import annotations

import json

import pytest

from prefork_lb.discovery.listing import parse_listing
from prefork_lb.discovery.source import ListError
from prefork_lb.shared.table import ServerEntry

A, B = "10.0.0.1:80", "10.0.0.2:80"
PLAIN = {A: ServerEntry(A, 1, 0, False), B: ServerEntry(B, 1, 0, False)}
RULES = {A: ServerEntry(A, 3, 7, True)}


@pytest.mark.parametrize(("ending", "text", "expected"), [
    (".json", f'["{A}", "{B}"]', PLAIN),
    (".json", f'{{"servers": ["{A}", {{"address": "{B}"}}]}}', PLAIN),
    (".toml", f'servers = ["{A}", "http://{B}"]', PLAIN),
    (".yaml", f"- {A}\n- {B}\n", PLAIN),
    (".yml", f"servers:\n- address: {A}\n  weight: 3\n  max_connections: 7\n  backup: true\n", RULES),
    # Prometheus: file_sd in YAML and JSON, http_sd.
    (".yml", f"- targets: ['{A}', '{B}']\n  labels:\n    job: web\n    __meta_zone: a\n", PLAIN),
    (".json", f'[{{"targets": ["{A}"], "labels": {{"env": "prod"}}}}, {{"targets": ["{B}"]}}]', PLAIN),
    (".json", f'[{{"targets": ["{A}"], "labels": {{"weight": "3", "max_connections": "7", "backup": "true"}}}}]', RULES),
    (".json", f'[{{"targets": []}}, "{A}", "{A}", "{B}"]', PLAIN),
    (".json", "[]", {}),
])
def test_a_list_is_read(ending: str, text: str, expected: dict[str, ServerEntry]) -> None:
    assert parse_listing(text.encode(), ending) == expected


@pytest.mark.parametrize(("ending", "data", "problem"), [
    (".json", b"", "not JSON"), (".json", b'["10.0.0.1:80"', "not JSON"), (".json", b"\xff", "not UTF-8"),
    (".json", b"[" * 100_000, "not JSON"), (".toml", b"servers = [", "not TOML"),
    (".toml", b"", "found a table with nothing in it"),
    (".yaml", b"", "found NoneType; expected a list"), (".yaml", b"a: b: c", "not YAML"),
    (".yaml", b"- !!python/object/apply:os.system [id]", "not YAML"),
    (".json", b'{"targets": ["10.0.0.1:80"]}', "found a table with 'targets'"), (".json", b'{"servers": "a:1"}', "found str"),
    (".json", b"[3]", "entry 0: found int; expected an address or a table"),
    (".json", b'["10.0.0.1"]', "entry 0: '10.0.0.1' has no port"),
    (".json", b'[{"targets": "10.0.0.1:80"}]', "entry 0: Expected `array`"),
    (".json", b'["10.0.0.1:80", {"targets": ["x"]}]', "entry 1: 'x' has no port"),
    (".json", b'[{"targets": ["10.0.0.1:80"], "labels": {"weight": "0"}}]', "entry 0: Expected `int` >= 1"),
    (".json", b'[{"address": "10.0.0.1:80", "wieght": 2}]', "entry 0: Object contains unknown field `wieght`"),
    (".json", b'["10.0.0.1:80", {"address": "10.0.0.1:80", "weight": 2}]', "10.0.0.1:80 is there twice"),
])
def test_a_list_is_believed_whole_or_not_at_all(ending: str, data: bytes, problem: str) -> None:
    with pytest.raises(ListError, match=problem.replace("[", r"\[")):
        parse_listing(data, ending)


def test_references_that_multiply_are_no_servers() -> None:
    parts = ["&a [x, x, x, x, x, x, x, x, x]"]
    parts += [f"&{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(ListError, match="entry 0: found list"):
        parse_listing(f"- [{', '.join(parts)}]".encode(), ".yaml")


def test_a_list_that_is_too_long_is_not_believed() -> None:
    many = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80" for number in range(10_001)]
    with pytest.raises(ListError, match="more than 10000 servers"):
        parse_listing(json.dumps(many).encode(), ".json")
