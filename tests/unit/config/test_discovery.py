"""`[pools.NAME.discovery]`."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.difference import differences
from prefork_lb.config.discovery import DiscoveryConfig, name_server
from prefork_lb.config.load import load
from prefork_lb.config.masked import masked
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.errors import ConfigError


def problems(tmp_path: Path, text: str) -> str:
    file = tmp_path / "lb.toml"
    file.write_text(text)
    try:
        load(file)
    except ConfigError as exc:
        return "\n".join(exc.problems)
    return ""


@pytest.mark.parametrize("line", [
    'file = "/etc/servers.json"', 'file = "servers.YML"', 'dns = "app.internal:8001"', 'dns = "https://app.internal:8443"',
    'srv = "_http._tcp.app.internal"', 'srv = "_http._tcp.app.internal."\nresolver = ["10.0.0.53", "[::1]:5353"]',
    'http = "https://user:secret@10.0.0.5:8080/list?pool=web"',
])
def test_a_pool_needs_no_servers_that_finds_them(tmp_path: Path, line: str) -> None:
    assert problems(tmp_path, f"[pools.web.discovery]\n{line}\n") == ""


@pytest.mark.parametrize(("lines", "problem"), [
    ("", "2: pools.web.discovery: found none; expected one of file, dns, srv, http"),
    ('file = "a.json"\ndns = "a:1"', "found file and dns; expected one of"),
    ('file = "servers.csv"', "'servers.csv' has no known format; expected a name that ends with .toml, .json, .yaml, .yml"),
    ('dns = "app.internal"', "has no port"), ('dns = "unix:/run/a.sock"', "is no name with a port"),
    ('srv = "http tcp"', "is no name; expected one like _http._tcp.app.internal"),
    ('http = "ftp://10.0.0.5/"', "no URL"), ('http = "http://:80/"', "no URL"), ('http = "http://a:x/"', "no URL"),
    ('dns = "a:1"\nresolver = ["ns.internal"]', "resolver[0]: 'ns.internal' is no name server"),
    ('file = "a.json"\nresolver = ["10.0.0.1"]', "has no meaning without dns or srv"),
    ('file = "a.json"\nmin_servers = 0', "0 is not in 1..10000"),
])
def test_what_cannot_work_is_told(tmp_path: Path, lines: str, problem: str) -> None:
    assert problem in problems(tmp_path, f"[pools.web]\n[pools.web.discovery]\n{lines}\n")


def test_a_pool_that_redirects_cannot_discover(tmp_path: Path) -> None:
    text = '[pools.web]\nmode = "redirect"\n[pools.web.discovery]\nfile = "a.json"\n'
    assert "need a public address" in problems(tmp_path, text)


def test_tls_may_be_for_servers_that_are_found(tmp_path: Path) -> None:
    assert problems(tmp_path, '[pools.web.tls]\nverify = false\n[pools.web.discovery]\nfile = "a.json"\n') == ""


def test_a_name_server_may_be_named_without_its_port() -> None:
    assert [name_server(text) for text in ("10.0.0.53", "::1", "[::1]:5353", "10.0.0.53:5353")] == [
        ("10.0.0.53", 53), ("::1", 53), ("::1", 5353), ("10.0.0.53", 5353)]


def test_secrets_of_a_url_are_shown_to_nobody(tmp_path: Path) -> None:
    discovery = DiscoveryConfig(http="https://user:opensesame@10.0.0.5:8080/list?token=opensesame")
    assert discovery.where == "http https://***@10.0.0.5:8080/list?***"
    config, other = (Config(pools={"web": PoolConfig(discovery=each)}) for each in (discovery, DiscoveryConfig(http="http://a/")))
    assert differences(config, other) == ["pools.web.discovery.http: changed"]
    found = problems(tmp_path, '[pools.web.discovery]\nhttp = "https://user:opensesame@10.0.0.5:x/"\n')
    assert "no URL" in found and "opensesame" not in found
    assert "opensesame" not in str(masked(config)["pools"])
    assert "10.0.0.5:8080/list" in str(masked(config)["pools"])


@pytest.mark.parametrize(("settings", "where"), [
    ({"file": "/a.json"}, "file /a.json"), ({"dns": "a:1"}, "dns a:1"), ({"srv": "_http._tcp.a"}, "srv _http._tcp.a"),
    ({"http": "http://a/b"}, "http http://a/b"),
])
def test_where_a_list_is_is_told_in_words(settings: dict[str, str], where: str) -> None:
    assert DiscoveryConfig(**settings).where == where
