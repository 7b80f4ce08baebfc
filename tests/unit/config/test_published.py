"""A configuration that another version has published."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prefork_lb.config.load import load_file
from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published, encode_published

TEXT = """
[pools.web]
servers = [{ address = "127.0.0.1:8001", weight = 3 }, "127.0.0.1:8002"]
[pools.web.health]
path = "/health"
[pools.web.queue]
size = 5
[[routes]]
pool = "web"
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "prefork_lb.toml"
    file.write_text(TEXT)
    return load_file(str(file))


def with_more(config: Config, change: Any) -> bytes:
    values = json.loads(encode_published(config))
    change(values)
    return json.dumps(values).encode()


def test_our_own_comes_back_as_it_was(config: Config) -> None:
    assert decode_published(encode_published(config)) == (config, [])


def test_keys_of_another_version_are_left_out_and_named(config: Config) -> None:
    def change(values: Any) -> None:
        values["novelty"] = {"a": 1}
        values["pools"]["web"]["servers"][1]["colour"] = "blue"
        values["pools"]["web"]["health"]["grpc"] = True
        values["routes"][0]["moods"] = ["GET"]

    found, left_out = decode_published(with_more(config, change))
    assert found == config
    assert sorted(left_out) == ["novelty", "pools.web.health.grpc", "pools.web.servers.1.colour", "routes.0.moods"]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"pools": 7}', b'{"pools": {"web": {"servers": [{}]}}}', b'{"pools": {'])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_published(data)
