"""The PROXY protocol both ways with a real HAProxy, as the proxy in front and as the server behind."""
from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from prefork_lb.wire.proxy_protocol import Parsed, SocketAddress, parse_proxy_header, proxy_header
from tests.unit.wire.test_proxy_protocol import VALID, as_sent
from tests.wire.corpus import Case

CONFIG = """
global
  nbthread 1
defaults
  mode tcp
  timeout connect 10s
  timeout client 10s
  timeout server 10s
frontend answers
  mode http
  bind fd@{answers} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src],%[src_port],%[dst],%[dst_port]"
"""
# Client connections to `listeners` reach the one server with a header in front.
CONFIG_OF_SENDER = """
frontend {name}
  bind fd@{inet}
  bind fd@{unix}
  {bind_inet6}
  default_backend {name}
frontend {name}-mixed
  bind fd@{mixed}
  tcp-request connection set-src str(2001:db8::7)
  default_backend {name}
backend {name}
  server one 127.0.0.1:{server} {options}
backend {name}-checked
  server one 127.0.0.1:{checked} check check-send-proxy inter 100ms {options}
"""
SENDERS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2-checksum": "send-proxy-v2 proxy-v2-options crc32c",
}
TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Sender:
    """HAProxy's listeners by family, and the sockets to which it connects: for them, and to check."""

    listeners: dict[str, str | tuple[str, int]]
    server: socket.socket
    checked: socket.socket


@dataclass(frozen=True, slots=True)
class HAProxy:
    answers: SocketAddress  # takes headers, and answers with the addresses that it read
    senders: dict[str, Sender]


def listening(family: socket.AddressFamily, address: str | SocketAddress) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.bind(address)
        sock.listen(64)
        sock.settimeout(TIMEOUT_S)
    except OSError:
        sock.close()
        raise
    return sock


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    program = shutil.which("haproxy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("haproxy is not installed: its PROXY headers are not compared with ours (apt-get install haproxy)")
    folder = tmp_path_factory.mktemp("haproxy")
    with contextlib.ExitStack() as stack:
        # HAProxy inherits sockets that listen already: no port to guess and no start to wait for.
        inherited: list[socket.socket] = []

        def inherit(family: socket.AddressFamily, address: str | SocketAddress) -> socket.socket:
            inherited.append(stack.enter_context(listening(family, address)))
            return inherited[-1]

        answers = inherit(socket.AF_INET, ("127.0.0.1", 0))
        config, senders = CONFIG.format(answers=answers.fileno()), {}
        for name, options in SENDERS.items():
            listeners = {
                "inet": inherit(socket.AF_INET, ("127.0.0.1", 0)),
                "unix": inherit(socket.AF_UNIX, str(folder / name)),
                "mixed": inherit(socket.AF_INET, ("127.0.0.1", 0)),
            }
            with contextlib.suppress(OSError):  # a host without IPv6: its tests are skipped and say so
                listeners["inet6"] = inherit(socket.AF_INET6, ("::1", 0))
            server, checked = (stack.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0))) for _ in range(2))
            config += CONFIG_OF_SENDER.format(
                name=name,
                inet=listeners["inet"].fileno(),
                unix=listeners["unix"].fileno(),
                mixed=listeners["mixed"].fileno(),
                bind_inet6=f"bind fd@{listeners['inet6'].fileno()}" if "inet6" in listeners else "",
                server=server.getsockname()[1],
                checked=checked.getsockname()[1],
                options=options,
            )
            addresses = {family: sock.getsockname() for family, sock in listeners.items()}
            senders[name] = Sender(addresses, server, checked)
        (folder / "haproxy.cfg").write_text(config)
        told = HAProxy(answers.getsockname(), senders)
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [program, "-db", "-f", str(folder / "haproxy.cfg")],
                pass_fds=[sock.fileno() for sock in inherited],
                stdout=log,
                stderr=log,
            )
        for sock in inherited:
            sock.close()  # else nobody would be refused when HAProxy is gone
        try:
            yield told
        finally:
            ended = process.poll()
            process.terminate()
            process.wait(TIMEOUT_S)
        assert ended is None, f"haproxy ended with {ended}: {(folder / 'log').read_text()}"


def received(listener: socket.socket, marker: bytes) -> bytes:
    """What comes on the next connection, up to and with `marker`, or to the end of the header when that is empty."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(TIMEOUT_S)
        data = b""
        while not (data.endswith(marker) if marker else parse_proxy_header(data)):
            piece = connection.recv(1)  # a byte at a time: each must be taken for what it is
            assert piece, f"closed after {data!r}"
            data += piece
            parse_proxy_header(data)
        return data


def through(sender: Sender, family: str) -> tuple[Parsed, SocketAddress]:
    """What is made of HAProxy's header for a client of the family, and the client's own address."""
    if family not in sender.listeners:
        pytest.skip("no IPv6 on this host")
    kind = {"unix": socket.AF_UNIX, "inet6": socket.AF_INET6}.get(family, socket.AF_INET)
    with socket.socket(kind) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(sender.listeners[family])
        client.sendall(b"from the client")
        data = received(sender.server, b"from the client")
        found = parse_proxy_header(data)
        assert found is not None and data[found.length :] == b"from the client"
        return found, client.getsockname()[:2]


@pytest.mark.parametrize("name", SENDERS)
@pytest.mark.parametrize("family", ["inet", "inet6"])
def test_haproxy_tells_the_addresses_of_its_client(haproxy: HAProxy, name: str, family: str) -> None:
    sender = haproxy.senders[name]
    found, client = through(sender, family)
    assert (found.source, found.destination) == (client, sender.listeners[family][:2])


@pytest.mark.parametrize("name", SENDERS)
def test_haproxy_tells_addresses_of_two_families(haproxy: HAProxy, name: str) -> None:
    sender = haproxy.senders[name]
    found, client = through(sender, "mixed")
    assert found.source == ("2001:db8::7", client[1])
    assert found.destination == ("::ffff:127.0.0.1", sender.listeners["mixed"][1])


@pytest.mark.parametrize("name", SENDERS)
def test_haproxy_tells_no_address_of_a_unix_socket(haproxy: HAProxy, name: str) -> None:
    found, _ = through(haproxy.senders[name], "unix")
    assert (found.source, found.destination) == (None, None)


@pytest.mark.parametrize("name", SENDERS)
def test_haproxy_checks_a_server(haproxy: HAProxy, name: str) -> None:
    checked = haproxy.senders[name].checked
    data = received(checked, b"")
    found = parse_proxy_header(data)
    assert found is not None and found.length == len(data)
    if name == "v1":  # 2.1: no UNKNOWN for checks, but the addresses of HAProxy's own connection
        assert found.source is not None and found.destination == checked.getsockname()
    else:
        assert (found.source, found.destination) == (None, None)


def addresses_read_by(answers: SocketAddress, wire: bytes) -> tuple[tuple[SocketAddress, SocketAddress] | None, SocketAddress]:
    """The addresses that HAProxy reads from a header, None when it closes instead; and the connection's own source."""
    with socket.create_connection(answers, TIMEOUT_S) as client:
        own = client.getsockname()
        client.sendall(wire + b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it closes with our request unread
            while piece := client.recv(65536):
                data += piece
    if not data.startswith(b"HTTP/1.1 200 "):
        return None, own
    words = data.rpartition(b"\r\n\r\n")[2].decode().split(",")
    # It writes nothing for port 0.
    return ((words[0], int(words[1] or 0)), (words[2], int(words[3] or 0))), own


# Where HAProxy is stricter than its specification, or does less.
REFUSED_BY_HAPROXY = {
    "v1_unknown_with_addresses": "takes UNKNOWN only at the end of the line, though 2.1 lets more follow",
    "v1_unknown_with_anything": "the same",
    "v1_unknown_longest": "the same",
    "v2_unspec": "takes PROXY with no family, which 2.2 leaves open, for malformed",
    "v2_unspec_with_tlv": "the same",
    "v2_checksum_in_unspec": "the same",
    "v2_unix": "the same for unix sockets",
    "v2_unix_with_tlv": "the same",
}


@pytest.mark.parametrize("case", [case for case in VALID if case.is_complete], ids=str)
def test_haproxy_reads_the_same(haproxy: HAProxy, case: Case) -> None:
    ours = parse_proxy_header(case.data)
    assert ours is not None
    theirs, own = addresses_read_by(haproxy.answers, case.data[: ours.length])
    if case.name in REFUSED_BY_HAPROXY:
        assert theirs is None
    else:
        assert theirs == ((ours.source, ours.destination) if ours.source else (own, haproxy.answers))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mixed", ["", "source", "destination"])
@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1", "::", "::ffff:192.0.2.1", "::192.0.2.1"])
def test_haproxy_reads_what_we_write(haproxy: HAProxy, ip: str, mixed: str, version: int) -> None:
    other = ("::1" if "." in ip and ":" not in ip else "198.51.100.2") if mixed else ip
    source, destination = ((other, 7), (ip, 443)) if mixed == "source" else ((ip, 7), (other, 443))
    theirs, _ = addresses_read_by(haproxy.answers, proxy_header(version, source, destination))
    assert theirs is not None
    packed = [ipaddress.ip_address(text).packed for text, _ in theirs]
    assert packed == as_sent((ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])))
    assert (theirs[0][1], theirs[1][1]) == (7, 443)


def test_haproxy_takes_a_line_without_addresses(haproxy: HAProxy) -> None:
    theirs, own = addresses_read_by(haproxy.answers, proxy_header(1, None, None))
    assert theirs == (own, haproxy.answers)
