"""The section `[cluster]`."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest

from prefork_lb.config.difference import differences
from prefork_lb.config.load import load
from prefork_lb.config.masked import masked
from prefork_lb.errors import ConfigError

POOL = '[pools.web]\nservers = ["127.0.0.1:8001"]\n[cluster]\n'


def problems(folder: Path, cluster: str) -> list[str]:
    file = folder / "a.toml"
    file.write_text(POOL + cluster)
    try:
        load(file)
    except ConfigError as exc:
        return [problem.removeprefix(f"{file}:") for problem in exc.problems]
    return []


@pytest.mark.parametrize("cluster", [
    'url = "redis://10.0.0.9"', 'url = "rediss://user:secret@cache.example:6380/2"', 'url = "unix:///run/redis.sock?db=1"',
    'url = "redis://[::1]:6379"', 'url = "redis://10.0.0.9:7000"\nkind = "cluster"',
    'url = "redis://10.0.0.9:26379/0"\nkind = "sentinel"\nservice = "site"\nsentinels = ["10.0.0.8:26379", "[::1]:26379"]',
])
def test_stores(tmp_path: Path, cluster: str) -> None:
    assert problems(tmp_path, cluster) == []


@pytest.mark.parametrize(("cluster", "found"), [
    ('url = "http://10.0.0.9"', "4: cluster.url: 'http' is no scheme of a store; expected redis://, rediss:// or unix://"),
    ('url = "redis:///0"', "4: cluster.url: no host; expected redis://HOST:PORT"),
    ('url = "redis://[::1"', "4: cluster.url: no URL"),
    ('url = "redis://a:99999"', "4: cluster.url: no URL"),
    ('url = "unix://host/x"', "4: cluster.url: expected unix:///path"),
    ('url = "unix:///x"\nkind = "cluster"', '4: cluster.url: kind = "cluster" has no unix sockets'),
    ('url = "redis://a"\nkind = "sentinel"', "3: cluster.service: missing; sentinels are asked for a primary by its name"),
    ('url = "redis://a"\nservice = "x"', '5: cluster.service: of no use without kind = "sentinel"'),
    ('url = "redis://a"\nkind = "sentinel"\nservice = "x"\nsentinels = ["nope"]',
     '7: cluster.sentinels[0]: \'nope\' is no sentinel; expected "HOST:PORT"'),
    ('url = "redis://a"\nsecret_file = "/no/such"',
     "5: cluster.secret_file: /no/such: cannot be read: No such file or directory"),
])
def test_what_cannot_work(tmp_path: Path, cluster: str, found: str) -> None:
    assert problems(tmp_path, cluster) == [found]


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    assert problems(tmp_path, 'url = "http://user:secret@a"')[0].count("secret") == 0
    assert problems(tmp_path, 'url = "redis://user:secret@a/1"') == []
    config = load(tmp_path / "a.toml")
    assert masked(config)["cluster"]["url"] == "redis://***@a/1"
    assert problems(tmp_path, 'url = "unix:///run/redis.sock?password=secret"') == []
    assert masked(load(tmp_path / "a.toml"))["cluster"]["url"] == "unix:///run/redis.sock?***"
    assert config.cluster is not None
    other = msgspec.structs.replace(config, cluster=msgspec.structs.replace(config.cluster, url="redis://user:other@a/1"))
    assert differences(config, other) == ["cluster.url: changed"]


def test_without_redis_py_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problems(tmp_path, 'url = "redis://a"') == [
        "3: cluster: redis-py is not installed, which this section needs: pip install prefork-lb[cluster]"]
