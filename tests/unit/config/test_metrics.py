"""The section `[metrics]`."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError

POOL = '[pools.web]\nservers = ["127.0.0.1:8001"]\n'


def loaded(folder: Path, text: str) -> Config:
    file = folder / "a.toml"
    file.write_text(POOL + text)
    return load(file)


@pytest.mark.parametrize(("statsd", "host", "port"), [
    ("udp://127.0.0.1:8125", "127.0.0.1", 8125), ("udp://[::1]:1", "::1", 1),
    ("udp://statsd.internal:8125", "statsd.internal", 8125),
])
def test_where_metrics_go(tmp_path: Path, statsd: str, host: str, port: int) -> None:
    config = loaded(tmp_path, f'[metrics]\nstatsd = "{statsd}"\n')
    assert (config.metrics.address.host, config.metrics.address.port, config.counts) == (host, port, True)


def test_statistics_are_kept_for_whoever_wants_them(tmp_path: Path) -> None:
    assert not loaded(tmp_path, "").counts and not loaded(tmp_path, "[metrics]\n").counts
    assert loaded(tmp_path, '[admin]\nbind = "127.0.0.1:9900"\n').counts


@pytest.mark.parametrize("key", [
    *(f'statsd = "{text}"' for text in ("127.0.0.1:8125", "udp://127.0.0.1", "tcp://a:1", "udp://a:1/x", "udp://https://a:1",
                                        "udp://unix:/run/a", "udp://a:0")),
    'prefix = ""', 'prefix = "a b"', 'prefix = "a..b"', "interval = 0",
])
def test_what_cannot_work_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, f"[metrics]\n{key}\n")
    (problem,) = told.value.problems
    assert f":4: metrics.{key.partition(' ')[0]}: " in problem
