"""What a pool that redirects may say, and what is told when it cannot work."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.load import load
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError


def content(public: str, more: str = 'mode = "redirect"', server: str = "") -> str:
    return f'[pools.web]\n{more}\nservers = [\n  {{ address = "127.0.0.1:8001", public = "{public}"{server} }},\n]\n'


def load_text(tmp_path: Path, text: str) -> Config:
    (tmp_path / "a.toml").write_text(text)
    return load(tmp_path / "a.toml")


@pytest.mark.parametrize("public", ["https://s1.example.com", "http://s1:8080", "https://s1.example.com/", "http://[2001:db8::1]:80",
                                    "http://127.0.0.1:8001", "https://xn--bcher-kva.example"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_good_ones(tmp_path: Path, public: str, status: int) -> None:
    pool = load_text(tmp_path, content(public, f'mode = "redirect"\nredirect_status = {status}')).pools["web"]
    assert (pool.mode, pool.redirect_status, pool.servers[0].public) == ("redirect", status, public)


@pytest.mark.parametrize("public", [
    "s1.example.com", "ftp://s1.example.com", "https://", "https://s1.example.com/a", "https://s1.example.com?a", "https://u@s1",
    "https://s1:0", "https://s1:99999", "https://s1 x", "https://s1\\r\\nX: y", "https://s1\\n", "https://[::zz]", "https://[1]", "javascript://x",
    "https://-a",     "https://a-", "//s1.example.com", "HTTPS ://s1", "https://s1.example.com#a", "https://s1\\\\x"])
def test_other_public_addresses_are_refused(tmp_path: Path, public: str) -> None:
    with pytest.raises(ConfigError, match=r"a.toml:4: pools.web.servers\[0\].public: .* is no address to send clients to"):
        load_text(tmp_path, content(public))


@pytest.mark.parametrize(("text", "told"), [
    (content(""), 'servers[0]: missing: public; a pool with mode = "redirect"'),
    (content("https://s1", ""), 'servers[0].public: has no meaning without mode = "redirect"'),
    (content("", "redirect_status = 301"), 'redirect_status: has no meaning without mode = "redirect"'),
    (content("https://s1", 'mode = "redirect"\nredirect_status = 303'),
     "redirect_status: found 303, expected 301 or 302 or 307 or 308"),
    (content("https://s1", 'mode = "redirekt"'), "mode: found 'redirekt', expected 'proxy' or 'redirect'"),
    (content("https://s1", server=", max_connections = 5"), "servers[0].max_connections: has no meaning"),
    (content("https://s1") + "[pools.web.queue]\n", "queue: has no meaning")])
def test_what_cannot_work_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert f"pools.web.{told}" in str(caught.value)
