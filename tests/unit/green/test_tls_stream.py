"""Green streams over TLS."""
from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from greenlet import getcurrent

from prefork_lb.green.hub import Hub
from prefork_lb.green.tls_stream import TLSStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from prefork_lb.net.tls import tell_cuts
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.unit.green.ends import tcp_pair
from tests.unit.green.running import DEADLINE_S, run

SHORT_S = 0.05


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"), "one", "one.example")


def contexts(pair: Pair) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server, and of a client that believes it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    tell_cuts(server)
    return server, ssl.create_default_context(cafile=str(pair.certificate))


def blocking_client(theirs: socket.socket, context: ssl.SSLContext, use: Callable[[ssl.SSLSocket], None]) -> threading.Thread:
    def client() -> None:
        with context.wrap_socket(theirs, server_hostname="one.example", suppress_ragged_eofs=False) as secure:
            use(secure)

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    return thread


@needs_openssl
def test_tls_both_ways_with_much_data(hub: Hub, pair: Pair) -> None:
    server, client = contexts(pair)
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    data = bytes(range(256)) * 4096
    echoed: list[bytes] = []

    def use(secure: ssl.SSLSocket) -> None:
        secure.sendall(data)
        while sum(map(len, echoed)) < len(data):
            echoed.append(secure.recv(1 << 16))

    def serve() -> int:
        stream = TLSStream(hub, mine, server, server_side=True)
        stream.handshake(DEADLINE_S)
        received = b""
        while len(received) < len(data):
            received += stream.receive(1 << 16, DEADLINE_S)
        stream.send(received, DEADLINE_S)
        stream.close()
        return len(received)

    thread = blocking_client(theirs, client, use)
    assert run(hub, serve) == len(data)
    thread.join(DEADLINE_S)
    assert b"".join(echoed) == data


@needs_openssl
def test_session_tickets_are_no_input_and_what_is_looked_at_is_kept(hub: Hub, pair: Pair) -> None:
    """A TLS 1.3 server sends tickets after the handshake: bytes on the socket, but nothing to receive."""
    server, client = contexts(pair)
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    say = threading.Event()

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as secure:
            say.wait(DEADLINE_S)
            secure.sendall(b"answer")
            secure.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def use() -> list[object]:
        stream = TLSStream(hub, mine, client, server_side=False, server_name="one.example")
        stream.handshake(DEADLINE_S)
        hub.sleep(0.05)  # the tickets are here by now
        seen: list[object] = [stream.is_quiet()]
        say.set()
        assert stream.wait_readable(hub.now + DEADLINE_S)
        while not stream.has_input():
            stream.wait_readable(hub.now + DEADLINE_S)
        seen.append(stream.is_quiet())
        answer = b""
        while len(answer) < 6:
            answer += stream.receive(100, DEADLINE_S)
        seen.append(answer)
        stream.close()
        return seen

    assert run(hub, use) == [True, False, b"answer"]
    thread.join(DEADLINE_S)


@needs_openssl
@pytest.mark.parametrize("orderly", [True, False])
def test_the_end_of_tls_is_told_from_a_cut(hub: Hub, pair: Pair, orderly: bool) -> None:
    server, client = contexts(pair)
    mine, theirs = tcp_pair()
    mine.setblocking(False)

    def use(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"all")
        if orderly:
            secure.unwrap()
        else:
            secure.detach()

    def serve() -> bytes:
        stream = TLSStream(hub, mine, server, server_side=True)
        stream.handshake(DEADLINE_S)
        assert stream.receive(9, DEADLINE_S) == b"all"
        if not orderly:
            theirs_raw.shutdown(socket.SHUT_RDWR)
        try:
            return stream.receive(9, DEADLINE_S)
        finally:
            stream.close()  # the client waits for our close_notify after its own

    theirs_raw = theirs.dup()
    thread = blocking_client(theirs, client, use)
    if orderly:
        result = run(hub, serve)
        assert result == b""
    else:
        with pytest.raises(StreamClosed):
            run(hub, serve)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@needs_openssl
def test_a_handshake_lets_others_go_before_its_signature(hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred clients that come at once each takes a millisecond."""
    server, client = contexts(pair)
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    order: list[str] = []
    others: list[Callable[[], object]] = []
    threads: list[threading.Thread] = []

    def give_way() -> None:
        order.append("gave way")
        others.append(getcurrent().switch)
        hub.call_at(hub.now, lambda: others.pop()())
        hub.switch()

    monkeypatch.setattr(hub.turns, "share", give_way)

    def serve() -> None:
        stream = TLSStream(hub, mine, server, server_side=True)
        # Timers run when this greenlet waits: the client begins after the server has found nothing to read.
        hub.call_at(hub.now, lambda: threads.append(blocking_client(theirs, client, lambda secure: None)))
        stream.handshake(DEADLINE_S)
        order.append("secured")
        stream.close()

    run(hub, serve)
    threads[0].join(DEADLINE_S)
    assert order[0] == "gave way" and order[-1] == "secured"


def test_a_handshake_that_does_not_come_is_a_timeout_and_garbage_an_error(hub: Hub, pair: Pair, tmp_path: Path) -> None:
    server, _ = contexts(pair)
    for said, error in ((b"", StreamTimeout), (b"GET / HTTP/1.1\r\n\r\n", StreamClosed)):
        mine, theirs = tcp_pair()
        mine.setblocking(False)
        theirs.sendall(said)
        with pytest.raises(error):
            run(hub, lambda mine=mine: TLSStream(hub, mine, server, server_side=True).handshake(SHORT_S))  # type: ignore[misc]
        theirs.close()
