"""The keys of TLS and of the PROXY protocol: what they become, and what is wrong with them, by line."""
from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest

from prefork_lb.config.load import load_file
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError
from prefork_lb.net.tls import upstream_context
from tests.support.certificates import Pair, make_pair, needs_openssl

POOL = '[pools.web]\nservers = ["127.0.0.1:1"]\n'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificates"), "one", "one.example")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificates"), "other", "other.example")


def load(folder: Path, text: str) -> Config:
    file = folder / "prefork_lb.toml"
    file.write_text(text)
    return load_file(str(file))


def problems(folder: Path, text: str) -> list[str]:
    """What is wrong, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


@needs_openssl
def test_certificates_as_they_should_be(tmp_path: Path, pair: Pair, other: Pair) -> None:
    both = tmp_path / "both.pem"
    both.write_text(other.certificate.read_text() + other.key.read_text())
    config = load(tmp_path, POOL + f'[[listen.certificates]]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
                  f'[[listen.certificates]]\ncertificate = "{both}"\nhosts = ["*.other.example", "other.example"]\n')
    assert [(found.certificate, found.hosts) for found in config.listen.certificates] == [
        (str(pair.certificate), ()), (str(both), ("*.other.example", "other.example"))]


@needs_openssl
def test_what_is_wrong_with_certificates(tmp_path: Path, pair: Pair, other: Pair) -> None:
    text = (POOL + f'[[listen.certificates]]\ncertificate = "{pair.certificate}"\nkey = "{other.key}"\n'
            '[[listen.certificates]]\ncertificate = "/nowhere.pem"\nhosts = ["a b"]\n'
            f'[[listen.certificates]]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    assert problems(tmp_path, text) == [
        f"prefork_lb.toml:4: listen.certificates[0].certificate: {pair.certificate}: not a certificate with the key of "
        f"{other.key}: key values mismatch",
        "prefork_lb.toml:7: listen.certificates[1].certificate: /nowhere.pem: cannot be read: No such file or directory",
        'prefork_lb.toml:8: listen.certificates[1].hosts[0]: \'a b\' is no host; expected a name, or "*." and a name',
        "prefork_lb.toml:9: listen.certificates[2].hosts: missing; only the first certificate is for all other names",
    ]


@needs_openssl
def test_an_encrypted_key_asks_nobody_for_its_password(tmp_path: Path, pair: Pair) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(pair.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    text = POOL + f'[[listen.certificates]]\ncertificate = "{pair.certificate}"\nkey = "{locked}"\n'
    (problem,) = problems(tmp_path, text)
    assert "the key is encrypted; decrypt it" in problem


def test_the_proxy_protocol_needs_somebody_who_is_believed(tmp_path: Path) -> None:
    text = "[listen]\nproxy_protocol = true\n" + POOL
    assert problems(tmp_path, text) == [
        "prefork_lb.toml:2: listen.proxy_protocol: nobody is believed; name the proxies in front in proxy.trusted_proxies"]
    assert load(tmp_path, text + '[proxy]\ntrusted_proxies = ["10.0.0.1"]\n').listen.proxy_protocol


def test_a_server_has_tls_or_a_header_by_its_own_words(tmp_path: Path) -> None:
    config = load(tmp_path, '[pools.web]\nservers = ["https://a:8443", { address = "b:1", proxy_protocol = 2 }]\n')
    found = [(server.address, server.proxy_protocol) for server in config.pools["web"].servers]
    assert found == [("https://a:8443", 0), ("b:1", 2)]
    assert problems(tmp_path, '[pools.web]\nservers = [{ address = "b:1", proxy_protocol = 3 }]\n') == [
        "prefork_lb.toml:2: pools.web.servers[0].proxy_protocol: 3 is not in 0..2"]


def test_two_spellings_of_a_server_are_one(tmp_path: Path) -> None:
    for one, two in (("A.example:80", "a.example:80"), ("[::1]:80", "[0:0::1]:80"), ("http://a", "a:80")):
        (problem,) = problems(tmp_path, f'[pools.web]\nservers = ["{one}", "{two}"]\n')
        assert "is the same server as servers[0]" in problem
    assert len(load(tmp_path, '[pools.web]\nservers = ["a:443", "https://a"]\n').pools["web"].servers) == 2


@needs_openssl
def test_what_is_wrong_with_tls_toward_servers(tmp_path: Path, pair: Pair) -> None:
    text = POOL + '[pools.web.tls]\nca_file = "/nowhere.pem"\nkey = "/key.pem"\n'
    assert problems(tmp_path, text) == [
        "prefork_lb.toml:3: pools.web.tls: no server of the pool has TLS; expected addresses like https://10.0.0.1:8443",
        "prefork_lb.toml:4: pools.web.tls.ca_file: /nowhere.pem: no certificates of authorities: no such file or directory",
        "prefork_lb.toml:5: pools.web.tls.key: a key without a certificate",
    ]
    good = f'[pools.web]\nservers = ["https://a"]\n[pools.web.tls]\nca_file = "{pair.certificate}"\nserver_name = "one.example"\n'
    tls = load(tmp_path, good).pools["web"].tls
    assert tls is not None and tls.verify and tls.server_name == "one.example"


@pytest.mark.parametrize(("text", "problem"), [
    ('[listen]\nbind = ["127.0.0.1:1", "127.0.0.1:1"]\n', "prefork_lb.toml:2: listen.bind[1]: '127.0.0.1:1' is there already"),
    ('[proxy]\ntrusted_proxies = [""]\n', "prefork_lb.toml:2: proxy.trusted_proxies[0]: '' is neither an address nor a network"),
    ('[proxy]\nvia = "name\\n"\n', "prefork_lb.toml:2: proxy.via: found 'name\\n'"),
    ("[proxy.timeouts]\nhead = 0\n", "prefork_lb.toml:2: proxy.timeouts.head: 0 is not above 0, at most 86400"),
])
def test_what_used_to_pass(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, text + POOL)
    assert found.startswith(problem)


@pytest.mark.parametrize("name", [".x", "a\\u0000", "a..b", "a" * 70, "a b", "a.", "fe80::1%eth0", "[::1]", "a:443"])
def test_a_name_that_tls_cannot_ask_for_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, f'[pools.web]\nservers = ["https://a:1"]\ntls.server_name = "{name}"\n')
    assert problem.startswith("prefork_lb.toml:3: pools.web.tls.server_name: ") and "is no name of a server" in problem


@pytest.mark.parametrize("name", ["app.example", "App_1.example", "10.0.0.1", "2001:db8::1", "xn--bcher-kva.example"])
def test_a_name_that_tls_can_ask_for_is_good(tmp_path: Path, name: str) -> None:
    config = load(tmp_path, f'[pools.web]\nservers = ["https://a:1"]\ntls.server_name = "{name}"\n')
    assert config.pools["web"].tls is not None and config.pools["web"].tls.server_name == name
    with contextlib.closing(socket.socket()) as plain:
        upstream_context().wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False).close()
