"""TLS toward clients and servers, and the PROXY protocol in and out, on ProxyWorker with real peers."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.support.client import fetch
from tests.support.pattern import pattern
from tests.support.place import HOST
from tests.support.rig import Rig
from tests.support.tls import TLSServer, believing
from tests.support.waiting import wait_until

pytestmark = needs_openssl
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "default": make_pair(folder, "default", "default.example", "localhost", HOST, "127.0.0.1"),
        "shop": make_pair(folder, "shop", "shop.example"),
        "wild": make_pair(folder, "wild", "*.wild.example"),
        "server": make_pair(folder, "server", "server.example", "127.0.0.1"),
        "client": make_pair(folder, "client", "balancer.example"),
    }


def listen_text(pairs: dict[str, Pair]) -> str:
    hosts = {"default": "[]", "shop": '["shop.example"]', "wild": '["*.wild.example"]'}
    return "".join(
        f'[[listen.certificates]]\ncertificate = "{pairs[name].certificate}"\nkey = "{pairs[name].key}"\nhosts = {names}\n'
        for name, names in hosts.items()
    )


def certificate_for(address: tuple[str, int], name: str | None) -> bytes:
    """The certificate (DER) that a client gets which asks for `name`."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def https(address: tuple[str, int]) -> str:
    return f"https://{HOST}:{address[1]}"


def curl(*arguments: str, code: int = 0) -> bytes:
    done = subprocess.run(["curl", "--silent", "--show-error", "--max-time", "20", *arguments], capture_output=True, check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done.stdout


@pytest.fixture
def balancer(rig: Rig, pairs: dict[str, Pair]) -> Balancer:
    return rig.balancer(listen_text(pairs) + pool_text(rig.origin(2).addresses), PROXY, workers=2, secure=True)


def test_the_certificate_is_that_of_the_name_asked_for(balancer: Balancer, pairs: dict[str, Pair]) -> None:
    asked = {"shop.example": "shop", "SHOP.example": "shop", "a.wild.example": "wild", "b.wild.example": "wild",
             "wild.example": "default", "a.b.wild.example": "default", "unknown.example": "default", None: "default"}
    wrong = [name for name, expected in asked.items() if certificate_for(balancer.address, name) != der(pairs[expected])]
    assert wrong == []


def test_a_reload_takes_the_certificates_that_are_there_now(rig: Rig, pairs: dict[str, Pair], tmp_path: Path) -> None:
    current = tmp_path / "current.pem"
    current.write_text(pairs["shop"].certificate.read_text() + pairs["shop"].key.read_text())
    text = f'[[listen.certificates]]\ncertificate = "{current}"\n' + pool_text(rig.origin(1).addresses)
    balancer = rig.balancer(text, PROXY, workers=1, secure=True)
    assert certificate_for(balancer.address, None) == der(pairs["shop"])
    current.write_text(pairs["server"].certificate.read_text() + pairs["server"].key.read_text())
    os.kill(balancer.master, signal.SIGHUP)
    wait_until(lambda: certificate_for(balancer.address, None) == der(pairs["server"]), "the new certificate")


def resumed(address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None, count: int = 1,
            ) -> tuple[list[bool | None], ssl.SSLSession | None]:
    """Whether each of so many connections, open together, went on with `session`; and the session of the last one."""
    found, last = [], None
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            plain = stack.enter_context(socket.create_connection(address, 20))
            secure = stack.enter_context(context.wrap_socket(plain, server_hostname="shop.example", session=session))
            secure.sendall(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            assert secure.recv(65536).startswith(b"HTTP/1.1 200 ")  # a session of TLS 1.3 comes behind the handshake
            found.append(secure.session_reused)
            last = secure.session
    return found, last


def test_a_ticket_is_good_at_every_worker_and_after_a_reload(balancer: Balancer) -> None:
    sessions = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = believing()
        context.minimum_version = context.maximum_version = version
        full, session = resumed(balancer.address, context)
        assert full == [False] and session is not None
        sessions.append((context, session))
    for is_reloaded in (False, True):
        if is_reloaded:
            balancer.reload()
        for context, session in sessions:
            # Connections that are open together are divided evenly among the workers.
            assert resumed(balancer.address, context, session, 8)[0] == [True] * 8


@needs_curl
def test_curl_downloads_uploads_and_is_told_the_scheme(balancer: Balancer, pairs: dict[str, Pair], tmp_path: Path) -> None:
    url, trust = https(balancer.address), ("--cacert", str(pairs["default"].certificate))
    assert curl(*trust, f"{url}/bytes?n=1000000") == bytes(pattern(0, 1_000_000))
    body = tmp_path / "body"
    body.write_bytes(bytes(pattern(0, 1_000_000)))
    assert json.loads(curl(*trust, "--data-binary", f"@{body}", f"{url}/upload"))["fits"]
    told = dict(json.loads(curl(*trust, f"{url}/echo"))["fields"])
    assert told["X-Forwarded-Proto"] == "https" and "proto=https" in told["Forwarded"]
    twice = curl(*trust, "--write-out", "%{num_connects} ", "--output", os.devnull, f"{url}/", "--output", os.devnull, f"{url}/")
    assert twice.split() == [b"1", b"0"], "the second request used the first one's connection"


@needs_curl
def test_a_response_that_breaks_off_is_an_error_to_curl(balancer: Balancer, pairs: dict[str, Pair]) -> None:
    url, trust = https(balancer.address), ("--cacert", str(pairs["default"].certificate))
    for framing, code in (("length", 18), ("chunked", 18), ("close", 56)):
        how = "reset" if framing == "close" else "eof"
        curl(*trust, f"{url}/broken?n=100000&sent=500&framing={framing}&how={how}", code=code)


def test_openssl_speaks_to_it_and_gets_http_1_1(balancer: Balancer) -> None:
    host, port = balancer.address
    done = subprocess.run(
        ["openssl", "s_client", "-quiet", "-connect", f"{host}:{port}", "-alpn", "h2,http/1.1", "-tls1_2"],
        input=b"GET /bytes?n=5 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        capture_output=True, timeout=20, check=False,
    )
    assert done.stdout.startswith(b"HTTP/1.1 200 ") and done.stdout.endswith(bytes(pattern(0, 5))), done.stderr


def test_plain_http_at_a_tls_port_hangs_nobody(balancer: Balancer) -> None:
    with socket.create_connection(balancer.address, 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        try:
            while plain.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert certificate_for(balancer.address, None), "and others are served"


# -- toward servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_a_server_with_tls_is_verified_and_its_connection_kept(rig: Rig, pairs: dict[str, Pair], front_end: FrontEnd) -> None:
    with TLSServer(pairs["server"]) as server:
        more = f'[pools.web.tls]\nca_file = "{pairs["server"].certificate}"\nserver_name = "server.example"'
        balancer = rig.balancer(pool_text([f"https://127.0.0.1:{server.port}"], more=more), front_end, workers=1)
        for _ in range(5):
            assert fetch(balancer.address).status == 200
        assert fetch(balancer.address, method="POST", body=bytes(500_000)).body == b"500000"
        assert server.names[0] == "server.example" and server.connections == 1
        balancer.wait_until_idle()


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
@pytest.mark.parametrize(("more", "reason"), [
    ("", "self-signed certificate"),
    ('ca_file = "{ca}"\nserver_name = "other.example"', "mismatch"),
], ids=["unknown authority", "another name"])
def test_a_server_that_cannot_be_believed_gets_nothing(
    rig: Rig, pairs: dict[str, Pair], front_end: FrontEnd, more: str, reason: str
) -> None:
    with TLSServer(pairs["server"]) as server:
        text = "[pools.web.tls]\n" + more.replace("{ca}", str(pairs["server"].certificate))
        balancer = rig.balancer(pool_text([f"https://127.0.0.1:{server.port}"], more=text), front_end, workers=1)
        assert fetch(balancer.address).status == 502
        assert reason.lower() in balancer.log().lower() and "certificate verify failed" in balancer.log()
        balancer.wait_until_idle()


def test_without_verify_any_certificate_will_do(rig: Rig, pairs: dict[str, Pair]) -> None:
    with TLSServer(pairs["server"]) as server:
        text = pool_text([f"https://127.0.0.1:{server.port}"], more="[pools.web.tls]\nverify = false")
        balancer = rig.balancer(text, PROXY, workers=1)
        assert fetch(balancer.address).status == 200


def test_the_servers_are_shown_our_own_certificate(rig: Rig, pairs: dict[str, Pair]) -> None:
    with TLSServer(pairs["server"], pairs["client"].certificate) as server:
        shown = f'certificate = "{pairs["client"].certificate}"\nkey = "{pairs["client"].key}"'
        for more, status in ((shown, 200), ("", 502)):
            text = pool_text([f"https://127.0.0.1:{server.port}"], more=f"[pools.web.tls]\nverify = false\n{more}")
            assert fetch(rig.balancer(text, PROXY, workers=1).address).status == status


# -- the PROXY protocol --------------------------------------------------------------------------------------------


def test_the_header_comes_before_the_handshake_and_may_come_in_pieces(rig: Rig, pairs: dict[str, Pair]) -> None:
    """proxy-protocol.txt, 2: before any data, so in the clear. HAProxy's send-proxy and AWS do so."""
    text = '[listen]\nproxy_protocol = true\n' + listen_text(pairs).replace("[listen]\n", "") + (
        '[proxy]\ntrusted_proxies = ["127.0.0.0/8"]\n' + pool_text(rig.origin(1).addresses))
    balancer = rig.balancer(text, PROXY, workers=1, secure=True, probe=b"PROXY UNKNOWN\r\n")
    context = ssl.create_default_context(cafile=str(pairs["default"].certificate))
    for pieces in ([b"PROXY TCP4 192.0.2.77 192.0.2.1 1234 443\r\n"], [b"PROXY TCP4 192.0.2.77 ", b"192.0.2.1 1234 443\r\n"]):
        with socket.create_connection(balancer.address, 10) as plain:
            for piece in pieces:
                plain.sendall(piece)
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: secure.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 200 ") and b"192.0.2.77" in answer
    for wrong in (b"PROXY TCP9 192.0.2.77\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(balancer.address, 10) as plain:
            plain.sendall(wrong)
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(99) == b""


def test_the_header_of_a_trusted_proxy_names_the_client(rig: Rig) -> None:
    origin = rig.origin(1)
    text = '[listen]\nproxy_protocol = true\n[proxy]\ntrusted_proxies = ["127.0.0.1"]\n' + pool_text(origin.addresses)
    balancer = rig.balancer(text, PROXY, workers=1, probe=b"PROXY UNKNOWN\r\n")
    addresses = socket.inet_aton("192.0.2.77") + socket.inet_aton("192.0.2.1")
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses + b"\x30\x39\x01\xbb"
    for header, client in ((b"PROXY TCP4 192.0.2.55 192.0.2.1 1234 443\r\n", "192.0.2.55"), (v2, "192.0.2.77"),
                           (b"PROXY UNKNOWN\r\n", "127.0.0.1")):
        for size in (1, len(header)):
            assert raw(balancer.address, *(header[i:i + size] for i in range(0, len(header), size)),
                       b"GET /echo HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            assert origin.arrivals[-1].values("X-Forwarded-For")[-1].endswith(client)
    assert raw(balancer.address, b"GET /echo HTTP/1.1\r\nHost: a.example\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(balancer.address, b"PROXY TCP4 1.2.3.4\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_stranger_cannot_name_itself(rig: Rig) -> None:
    text = '[listen]\nproxy_protocol = true\n[proxy]\ntrusted_proxies = ["192.0.2.0/24"]\n' + pool_text(rig.origin(1).addresses)
    balancer = rig.balancer(text, PROXY, workers=1)
    answer = raw(balancer.address, b"PROXY TCP4 192.0.2.55 192.0.2.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def raw(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Send the pieces, each in a packet of its own; all that comes back."""
    with socket.create_connection(address, 10) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            plain.sendall(piece)
        return b"".join(iter(lambda: plain.recv(65536), b""))


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
@pytest.mark.parametrize("version", [1, 2])
def test_a_server_is_told_of_the_clients_connection(rig: Rig, front_end: FrontEnd, version: int) -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            for _ in range(2):
                connected, _ = listener.accept()
                with connected:
                    data = b""
                    while b"HTTP/1.1\r\n" not in data or not data.endswith(b"\r\n\r\n"):
                        data += connected.recv(65536)
                    seen.append(data)
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    connected.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = f'{{ address = "127.0.0.1:{listener.getsockname()[1]}", proxy_protocol = {version} }}'
        balancer = rig.balancer(pool_text([server]), front_end, workers=1)
        ports = []
        for _ in range(2):
            with socket.create_connection(balancer.address, 10) as client:
                ports.append(client.getsockname()[1])
                client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        thread.join(20)
    source, local = socket.inet_aton("127.0.0.1"), socket.inet_aton(HOST)
    for data, port in zip(seen, ports, strict=True):
        if version == 1:
            expected = b"PROXY TCP4 127.0.0.1 %b %d %d\r\nGET " % (HOST.encode(), port, balancer.address[1])
        else:
            both = port.to_bytes(2, "big") + balancer.address[1].to_bytes(2, "big")
            expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + source + local + both + b"GET "
        assert data.startswith(expected), data[:80]
