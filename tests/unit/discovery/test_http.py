"""Lists by HTTP, from a real server on loopback."""
from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from prefork_lb.discovery import http
from prefork_lb.discovery.http import HTTPSource
from prefork_lb.discovery.source import ListError
from tests.support.place import HOST

LIST = b'[{"targets": ["10.0.0.1:80"], "labels": {"weight": "2"}}]'
Answer = Callable[[socket.socket, str, "Server"], None]


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields, "", ""])
    return head.encode() + body


class Server:
    """Answers each connection's request as it is told to."""

    def __init__(self, respond: Answer) -> None:
        self.heads: list[str] = []
        self._listener = socket.create_server((HOST, 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._respond = respond
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # the client may leave
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (data := connection.recv(65536)):
                        break
                    head += data
                self.heads.append(head.decode())
                self._respond(connection, self.heads[-1], self)

    def close(self) -> None:
        self.ended.set()
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    made: list[Server] = []

    def start(respond: Answer) -> Server:
        made.append(Server(respond))
        return made[-1]

    yield start
    for each in made:
        each.close()


Serve = Callable[[Answer], Server]


def test_a_list_is_fetched_and_asked_for_by_its_tag(serve: Serve) -> None:
    def respond(connection: socket.socket, head: str, server: Server) -> None:
        is_known = 'if-none-match: "v1"' in head.lower()
        connection.sendall(answer(b"", "304 Not Modified") if is_known else answer(LIST, "200 OK", 'ETag: "v1"'))

    server = serve(respond)
    source = HTTPSource(server.url, 3.0)
    first, second = source.look(), source.look()
    assert first.servers["10.0.0.1:80"].weight == 2 and first.again_s == 3.0
    assert second is first
    assert "if-none-match" not in server.heads[0].lower() and len(server.heads) == 2


def test_a_tag_of_a_list_that_was_not_believed_is_forgotten(serve: Serve) -> None:
    server = serve(lambda connection, head, server: connection.sendall(answer(b"[3]", "200 OK", 'ETag: "v1"')))
    source = HTTPSource(server.url, 3.0)
    for _ in range(2):
        with pytest.raises(ListError, match="entry 0"):
            source.look()
    assert "if-none-match" not in server.heads[1].lower()


def trickle(connection: socket.socket, head: str, server: Server) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000:
        if server.ended.wait(0.02):
            return
        connection.sendall(bytes([byte]))


def trickle_body(connection: socket.socket, head: str, server: Server) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
    while not server.ended.wait(0.02):
        connection.sendall(b" ")


def in_one(data: bytes) -> Answer:
    return lambda connection, head, server: connection.sendall(data)


@pytest.mark.parametrize(("respond", "problem"), [
    (in_one(answer(b"no", "500 Oops")), "the answer has the status 500"),
    (in_one(answer(b"", "304 Not Modified")), "the answer has the status 304"),
    (in_one(answer(b"<html>")), "not JSON"),
    (in_one(answer(LIST)[:-5]), "no answer: "),
    (in_one(answer(b"", "302 Found", "Location: /again")), "more than 5 redirects"),
    (in_one(answer(b" " * (5 << 20))), "longer than 4 MiB"),
    (in_one(answer(gzip.compress(b" " * (50 << 20)), "200 OK", "Content-Encoding: gzip")), "longer than 4 MiB"),
    (in_one(b""), "no answer: "),
    (in_one(b"SSH-2.0-x\r\n"), "no answer: "),
    (trickle, "no whole answer within 0.5 s"), (trickle_body, "no whole answer within 0.5 s"),
])
def test_what_is_no_list_is_told(serve: Serve, respond: Answer, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if respond in (trickle, trickle_body):
        monkeypatch.setattr(http, "_LOOK_S", 0.5)
    with pytest.raises(ListError, match=problem):
        HTTPSource(serve(respond).url, 3.0).look()


@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_look_ends_in_time_also_when_it_connects_too_late(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, by_proxy: bool
) -> None:
    """The addresses of a name may be tried for longer than a look may take."""
    ended: list[str] = []

    def respond(connection: socket.socket, head: str, server: Server) -> None:
        for number in range(200):
            connection.sendall(answer(LIST)[number:number + 1])
            server.ended.wait(0.02)
        ended.append(head)

    monkeypatch.setattr(http, "_LOOK_S", 0.0)
    url = serve(respond).url
    if by_proxy:
        monkeypatch.setenv("http_proxy", url)
    with pytest.raises(ListError, match="no whole answer within 0 s"):
        HTTPSource("http://list.internal/" if by_proxy else url, 3.0).look()
    assert not ended, "the whole answer was waited for"


def test_a_list_is_fetched_through_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socks")
    monkeypatch.setattr(http, "_READ_S", 20.0)
    monkeypatch.setattr(http, "_LOOK_S", 60.0)
    wanted: list[bytes] = []

    def serve_one() -> None:
        connection = listener.accept()[0]
        with connection, connection.makefile("rb") as sent:
            sent.read(sent.read(2)[1])  # the ways to sign in (RFC 1928)
            connection.sendall(b"\5\0")
            sent.read(4)
            wanted.append(sent.read(sent.read(1)[0]))
            sent.read(2)
            connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            while sent.readline() != b"\r\n":
                pass
            connection.sendall(answer(LIST))

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=serve_one, daemon=True).start()
        monkeypatch.setenv("http_proxy", "socks5h://{}:{}".format(*listener.getsockname()))
        assert list(HTTPSource("http://list.internal/", 3.0).look().servers) == ["10.0.0.1:80"]
    assert wanted == [b"list.internal"]


def test_a_socks_proxy_that_trickles_holds_a_look_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socks")
    monkeypatch.setattr(http, "_LOOK_S", 0.5)
    sent = 0

    def trickle_reply() -> None:
        nonlocal sent
        with contextlib.suppress(OSError), listener.accept()[0] as connection:  # the source leaves, or has not come
            connection.recv(3)
            connection.sendall(b"\5\0")
            for byte in b"\5\0\0\3\xff" + b"x" * 250:
                connection.sendall(bytes([byte]))
                sent += 1
                if is_over.wait(0.1):
                    return

    is_over = threading.Event()
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=trickle_reply, daemon=True)
        thread.start()
        monkeypatch.setenv("http_proxy", "socks5h://{}:{}".format(*listener.getsockname()))
        with pytest.raises(ListError, match="no whole answer within 0.5 s"):
            HTTPSource("http://list.internal/", 3.0).look()
        is_over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
    assert sent < 200, "the whole reply was waited for"


def test_each_connection_through_a_proxy_is_watched_once(serve: Serve) -> None:
    server = serve(lambda connection, head, server: connection.sendall(answer(LIST)))
    watched: list[socket.socket] = []
    with requests.Session() as session:
        session.mount("http://", http._Adapter(watched.append))
        for host in ("one.internal", "two.internal", "three.internal"):
            assert session.get(f"http://{host}/", proxies={"http": server.url}, timeout=20).content == LIST
    assert len(watched) == 3


def test_a_server_that_says_nothing_or_is_not_there_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_READ_S", 0.2)
    server = serve(lambda connection, head, server: server.ended.wait(20) and None)
    with pytest.raises(ListError, match=r"no answer within 0.2 s"):
        HTTPSource(server.url, 3.0).look()
    server.close()
    with pytest.raises(ListError, match="no answer: Connection refused|no answer within"):
        HTTPSource(server.url, 3.0).look()
