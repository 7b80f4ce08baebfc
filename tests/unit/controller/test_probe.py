"""The prober against real sockets: what passes, what fails and why, and what becomes of the connections."""
from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork_lb.controller.http_check import BODY_LIMIT_BYTES
from prefork_lb.controller.probe import Outcome, Probe, Prober
from prefork_lb.net.address import Address
from prefork_lb.wire import proxy_protocol
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.support.descriptors import no_descriptor_left
from tests.wire import corpus

SHORT_S = 0.5
SHORT_TLS_S = 1.5  # the certificates of the machine are read first
PROMPT_S = 5.0  # far below what a check without a deadline would take, far above what a busy machine needs
DEADLINE_S = 20.0


def answer(body: bytes = b"ready", status: str = "200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), fields, body)


Turn = Callable[[socket.socket, threading.Event], None]
"""Says something in answer to a request; the event is set when the test is over."""


def says(data: bytes) -> Turn:
    return lambda connection, over: connection.sendall(data)


def closes_after(data: bytes) -> Turn:
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        connection.close()

    return turn


def resets_after(data: bytes) -> Turn:
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return turn


def hangs(connection: socket.socket, over: threading.Event) -> None:
    over.wait(DEADLINE_S)


def drips(head: bytes, drop: bytes) -> Turn:
    """Something every 50 ms, far more often than any timeout of a single read."""
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head)
        while not over.wait(0.05):
            connection.sendall(drop)

    return turn


class Server:
    """Takes its turns in their order, one for each request, over all connections; the last one again and again."""

    def __init__(self, listener: socket.socket, turns: tuple[Turn, ...], context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.names: list[str | None] = []
        self._turns = list(turns)
        self._listener = listener
        self._context = context
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name)
        self._over = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def address(self) -> Address:
        if self._listener.family == socket.AF_UNIX:
            return Address(path=self._listener.getsockname())
        return Address("127.0.0.1", self._listener.getsockname()[1], tls=self._context is not None)

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread; close alone would leave it in accept() for good
        self._acceptor.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while head := self._head(connection):
                    self.heads.append(head)
                    turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
                    turn(connection, self._over)
        except OSError:
            pass  # the prober has gone

    def _head(self, connection: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = connection.recv(4096)
            if not data:
                return b""
            head += data
        return head


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*turns: Turn, context: ssl.SSLContext | None = None, path: Path | None = None) -> Server:
        if path is None:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
        servers.append(Server(listener, turns, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def prober() -> Iterator[Prober]:
    prober = Prober()
    yield prober
    prober.close()


def unused_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Address("127.0.0.1", listener.getsockname()[1])


def http(address: Address, timeout_s: float = DEADLINE_S, **more: object) -> Probe:
    return Probe("http", address, timeout_s=timeout_s, **more)  # type: ignore[arg-type]


def timed(prober: Prober, probe: Probe) -> Outcome:
    """A check that must end soon after its timeout."""
    started = time.monotonic()
    outcome = prober.probe(probe)
    assert time.monotonic() - started < PROMPT_S
    return outcome


# -- What is asked and judged --------------------------------------------------------------------------------------


def test_a_good_answer_passes_and_says_how_long_it_took(prober: Prober, serve: Serve) -> None:
    outcome = prober.probe(http(serve(says(answer())).address))
    assert outcome.passed
    assert outcome.reason.startswith("200 in ") and outcome.reason.endswith("s")
    assert 0 < outcome.seconds < DEADLINE_S


def test_the_request_is_what_the_probe_says(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    assert prober.probe(http(server.address, method="HEAD", path="/health?deep=1", host="www.example",
                             headers=(("X-Token", "secret"),))).passed
    start, *fields = server.heads[0].decode().split("\r\n")[:-2]
    assert start == "HEAD /health?deep=1 HTTP/1.1"
    assert {"Host: www.example", "User-Agent: prefork_lb-check", "X-Token: secret"} <= set(fields)


def test_a_field_of_the_probe_takes_the_place_of_our_own(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    assert prober.probe(http(server.address, headers=(("user-agent", "mine"),))).passed
    assert server.heads[0].lower().count(b"user-agent:") == 1 and b"mine" in server.heads[0]


def test_without_a_host_it_is_the_address(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    prober.probe(http(server.address))
    assert b"Host: 127.0.0.1:%d\r\n" % server.address.port in server.heads[0]


def test_the_environment_s_proxy_is_not_used(prober: Prober, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve(says(answer())), serve(says(answer()))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    assert prober.probe(http(server.address)).passed
    assert (server.connections, proxy.connections) == (1, 0)


def test_a_wrong_status_tells_what_was_expected(prober: Prober, serve: Serve) -> None:
    outcome = prober.probe(http(serve(says(answer(status="500 No"))).address, statuses=frozenset([*range(200, 400), 404])))
    assert outcome[:2] == (False, "status 500, expected 200-399, 404")


@pytest.mark.parametrize(("statuses", "passed"), [(range(200, 400), True), (range(200, 300), False)])
def test_a_redirect_is_judged_and_not_followed(prober: Prober, serve: Serve, statuses: range, passed: bool) -> None:
    server = serve(says(answer(status="302 Found", fields=b"Location: /elsewhere\r\nSet-Cookie: a=b\r\n")))
    probe = http(server.address, statuses=frozenset(statuses))
    assert prober.probe(probe).passed is passed
    assert prober.probe(probe).passed is passed
    assert [head.split()[1] for head in server.heads] == [b"/", b"/"]
    assert b"cookie" not in server.heads[1].lower()


@pytest.mark.parametrize(("body", "more", "passed", "reason"), [
    (b"all is ready", {"text": "ready"}, True, "200 in"),
    (b"all is not", {"text": "ready"}, False, "text 'ready' not found"),
    (b"ready-17", {"pattern": r"^ready-\d+$"}, True, "200 in"),
    (b"ready-x", {"pattern": r"^ready-\d+$"}, False, r"pattern '^ready-\\d+$' not found"),
    (b"ready-17", {"text": "-17", "pattern": "^steady"}, False, "pattern '^steady' not found"),
    ("gr\u00fcn".encode(), {"text": "gr\u00fcn"}, True, "200 in"),
    (bytes(BODY_LIMIT_BYTES - 5) + b"ready", {"text": "ready"}, True, "200 in"),
    (bytes(BODY_LIMIT_BYTES - 4) + b"ready", {"text": "ready"}, False, "text 'ready' not found"),
])
def test_the_body_is_searched(prober: Prober, serve: Serve, body: bytes, more: dict[str, str], passed: bool, reason: str) -> None:
    outcome = prober.probe(http(serve(says(answer(body))).address, **more))
    assert (outcome.passed, outcome.reason[:len(reason)]) == (passed, reason)


def test_the_body_s_charset_is_heeded(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer("gr\u00fcn".encode("latin-1"), fields=b"Content-Type: text/plain; charset=iso-8859-1\r\n")))
    assert prober.probe(http(server.address, text="gr\u00fcn")).passed


def test_a_chunked_body_is_searched(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"))
    assert prober.probe(http(server.address, text="ready")).passed


def test_a_port_of_its_own_is_checked(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    probe = http(unused_address(), port=server.address.port)
    assert prober.probe(probe).passed
    assert b"Host: 127.0.0.1:%d\r\n" % server.address.port in server.heads[0]


def test_http_over_a_unix_socket(prober: Prober, serve: Serve, tmp_path: Path) -> None:
    server = serve(says(answer()), path=tmp_path / "s")
    assert prober.probe(http(server.address, text="ready", port=1)).passed
    assert b"Host: localhost\r\n" in server.heads[0]
    assert prober.probe(http(Address(path=str(tmp_path / "none"))))[:2] == (False, "no such file or directory")


def test_tcp_needs_a_connection_only(prober: Prober, serve: Serve) -> None:
    server = serve(hangs)
    outcome = prober.probe(Probe("tcp", server.address))
    assert outcome.passed and outcome.reason.startswith("connected in ")
    assert prober.probe(Probe("tcp", unused_address()))[:2] == (False, "connection refused")
    assert prober.probe(Probe("tcp", unused_address(), port=server.address.port)).passed


# -- What goes wrong -----------------------------------------------------------------------------------------------


def test_a_refused_connection(prober: Prober) -> None:
    assert prober.probe(http(unused_address()))[:2] == (False, "connection refused")


def test_a_name_that_does_not_resolve(prober: Prober) -> None:
    outcome = prober.probe(http(Address("no-such-name.invalid", 80)))
    assert not outcome.passed and "does not resolve" in outcome.reason


@pytest.mark.parametrize("turn", [
    pytest.param(hangs, id="hangs"),
    pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Le"), id="stops in the head"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="drips in the head"),
    pytest.param(drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continues for ever"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"), id="drips in the body"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), id="drips chunks"),
])
def test_the_timeout_is_for_the_whole_check(prober: Prober, serve: Serve, turn: Turn) -> None:
    assert timed(prober, http(serve(turn).address, timeout_s=SHORT_S, text="ready"))[:2] == (False, "no answer within 0.5 s")


def test_a_connection_that_is_not_accepted_is_a_timeout(prober: Prober, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        other.connect(str(tmp_path / "s"))  # the queue is full now
        outcome = timed(prober, Probe("tcp", Address(path=str(tmp_path / "s")), timeout_s=SHORT_S))
    assert outcome[:2] == (False, "no connection within 0.5 s")


def test_a_body_that_nobody_looks_at_holds_nothing_up(prober: Prober, serve: Serve) -> None:
    server = serve(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"))
    outcome = timed(prober, http(server.address))
    assert outcome.passed and outcome.seconds < PROMPT_S


@pytest.mark.parametrize(("turn", "reason"), [
    (resets_after(b"HTTP/1.1 200 OK\r\nContent-"), "connection lost before the response: Connection reset by peer"),
    (closes_after(b""), "connection closed before the response"),
    (closes_after(b"SSH-2.0-OpenSSH_9.6\r\n"),
     "connection closed before the response head was whole, which began with b'SSH-2.0"),
    (closes_after(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), "the head has 1000 fields, at most 100 are allowed"),
    (closes_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nready"), "connection closed in the middle of the body"),
    (closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nrea"), "connection closed in the middle"),
    (closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n"), "not a chunk size"),
    (closes_after(answer(fields=b"Content-Encoding: gzip\r\n")), "the body is not gzip"),
])
def test_a_broken_answer_is_a_failure_with_a_reason(prober: Prober, serve: Serve, turn: Turn, reason: str) -> None:
    outcome = timed(prober, http(serve(turn).address, text="ready"))
    assert (outcome.passed, outcome.reason[:len(reason)]) == (False, reason)


@pytest.mark.parametrize("case", corpus.cases("invalid", "response"), ids=str)
def test_an_answer_that_traffic_refuses_fails_the_check_for_the_same_reason(
        prober: Prober, serve: Serve, case: corpus.Case) -> None:
    method = case.request_method.decode()
    outcome = timed(prober, http(serve(closes_after(case.data)).address, limits=case.limits, method=method))
    assert not outcome.passed
    assert case.expected["message"].lower() in outcome.reason.lower()


@pytest.mark.parametrize("case", [case for case in corpus.cases("valid", "response")
                                  if case.is_complete and case.expected["status"] >= 200], ids=str)
def test_an_answer_that_traffic_takes_passes(prober: Prober, serve: Serve, case: corpus.Case) -> None:
    probe = http(serve(closes_after(case.data)).address, limits=case.limits, method=case.request_method.decode(),
                 statuses=frozenset(range(200, 1000)))
    outcome = timed(prober, probe)
    assert outcome.passed or "in the middle of the body" in outcome.reason, outcome.reason


def test_a_switch_of_protocols_that_nobody_asked_for_is_a_failure(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"))
    assert prober.probe(http(server.address))[:2] == (False, "101 Switching Protocols without an Upgrade in the request")


def test_interim_answers_are_passed_over(prober: Prober, serve: Serve) -> None:
    assert prober.probe(http(serve(says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer())).address)).passed


@pytest.mark.parametrize("more", [{}, {"text": "ready"}])
def test_a_body_that_breaks_is_a_failure_though_nobody_looks_at_it(prober: Prober, serve: Serve, more: dict[str, str]) -> None:
    server = serve(closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nready\r\n"))
    assert prober.probe(http(server.address, **more))[:2] == (False, "a chunk is longer than its size says: b'ady\\r\\n'")


def test_a_compressed_body_is_searched_though_it_was_not_asked_for(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer(gzip.compress(b"all is ready"), fields=b"Content-Encoding: gzip\r\n")))
    assert prober.probe(http(server.address, text="is ready")).passed


def test_a_resolver_that_hangs_ends_with_the_check(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        over.wait(DEADLINE_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    outcome = timed(prober, http(Address("app.test", 80), timeout_s=SHORT_S))
    over.set()
    assert outcome[:2] == (False, "the resolver did not answer within 0.5 s")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_check_for_which_there_is_no_descriptor_says_nothing_about_the_server(
        prober: Prober, serve: Serve, kind: str) -> None:
    address = serve(says(answer())).address
    with no_descriptor_left():
        outcome = prober.probe(Probe(kind, address))
    assert outcome.passed is None and "Too many open files" in outcome.reason


@pytest.mark.parametrize("version", [1, 2])
def test_a_server_that_expects_a_proxy_header_gets_one_that_names_nobody(prober: Prober, serve: Serve, version: int) -> None:
    server = serve(says(answer()))
    probe = http(server.address, proxy_protocol=version)
    assert [prober.probe(probe).passed for _ in range(2)] == [True, True]
    header = proxy_protocol.header(version, None, None)
    assert b"".join(server.heads).count(header) == 1, "once a connection"
    other = serve(says(answer()))
    assert prober.probe(http(server.address, port=other.address.port, proxy_protocol=version)).passed
    assert other.heads[0].startswith(b"GET"), "a port of its own is another service"


@pytest.mark.parametrize("more", [
    {"pattern": "("}, {"headers": (("X", "a\r\nb"),)}, {"method": "G T"}, {"path": "/\u00e4\n"}, {"timeout_s": 0.0},
])
def test_a_probe_that_cannot_be_made_fails_and_raises_nothing(prober: Prober, serve: Serve, more: dict[str, object]) -> None:
    server = serve(closes_after(b""))
    outcome = prober.probe(Probe(**{"type": "http", "address": server.address, **more}))  # type: ignore[arg-type]
    assert not outcome.passed and outcome.reason


# -- Connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"text": "ready"}, {"text": "missing"}, {"statuses": frozenset([204])}])
def test_the_connection_is_kept_whatever_came_of_the_check(prober: Prober, serve: Serve, more: dict[str, object]) -> None:
    server = serve(says(answer()))
    for _ in range(3):
        prober.probe(http(server.address, **more))
    assert (server.connections, len(server.heads)) == (1, 3)


def test_a_large_body_costs_the_connection_and_not_the_check(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer(bytes(BODY_LIMIT_BYTES + 1))))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert server.connections == 2


def test_an_idle_connection_that_was_closed_is_no_failure(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(answer()), says(answer()))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert server.connections == 2


@pytest.mark.parametrize("turn", [closes_after(b""), resets_after(b"")])
def test_a_connection_closed_as_the_request_comes_is_no_failure(prober: Prober, serve: Serve, turn: Turn) -> None:
    server = serve(says(answer()), turn, says(answer()))
    assert [prober.probe(http(server.address)).passed for _ in range(2)] == [True, True]
    assert (server.connections, len(server.heads)) == (2, 3)


def test_a_fresh_connection_is_tried_once_only(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()), closes_after(b""))
    assert prober.probe(http(server.address)).passed
    assert prober.probe(http(server.address))[:2] == (False, "connection closed before the response")
    assert (server.connections, len(server.heads)) == (2, 3)


def test_a_first_connection_that_is_closed_is_not_tried_again(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(b""), says(answer()))
    assert not prober.probe(http(server.address)).passed
    assert server.connections == 1


def test_a_failure_does_not_stick(prober: Prober, serve: Serve) -> None:
    server = serve(closes_after(b"garbage\r\n"), hangs, says(answer()))
    passed = [prober.probe(http(server.address, timeout_s=SHORT_S)).passed for _ in range(2)]
    server.close()  # lets the one that hangs go
    assert passed == [False, False]
    again = serve(closes_after(b"garbage\r\n"), says(answer()))
    assert [prober.probe(http(again.address)).passed for _ in range(2)] == [False, True]


def test_one_probe_by_two_threads_at_a_time(prober: Prober, serve: Serve) -> None:
    both_here = threading.Barrier(2)

    def meets(connection: socket.socket, over: threading.Event) -> None:
        both_here.wait(DEADLINE_S)
        connection.sendall(answer())

    probe = http(serve(meets).address)
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(prober.probe(probe)), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [outcome.passed for outcome in outcomes] == [True, True]


def test_connections_of_other_probes_are_closed(prober: Prober, serve: Serve) -> None:
    kept, dropped = serve(says(answer())), serve(says(answer()))
    for server in (kept, dropped):
        prober.probe(http(server.address))
    prober.keep({http(kept.address)})
    for server in (kept, dropped):
        prober.probe(http(server.address))
    assert (kept.connections, dropped.connections) == (1, 2)


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"), "one", "one.example")


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@needs_openssl
def test_https_with_a_name_of_its_own_is_verified_and_kept(prober: Prober, serve: Serve, pair: Pair) -> None:
    server = serve(says(answer()), context=server_context(pair))
    probe = http(server.address, ca_file=str(pair.certificate), server_name="one.example", text="ready")
    assert [prober.probe(probe).passed for _ in range(3)] == [True, True, True]
    assert (server.connections, server.names) == (1, ["one.example"])


@needs_openssl
@pytest.mark.parametrize(("believed", "name", "reason"), [
    (False, "one.example", "certificate verify failed: self-signed certificate"),
    (True, "two.example", "certificate verify failed: hostname mismatch"),
    (True, "", "certificate verify failed: IP address mismatch"),
])
def test_https_that_cannot_be_believed(
    prober: Prober, serve: Serve, pair: Pair, believed: bool, name: str, reason: str
) -> None:
    server = serve(says(answer()), context=server_context(pair))
    ca_file = str(pair.certificate) if believed else ""
    outcome = prober.probe(http(server.address, ca_file=ca_file, server_name=name))
    assert (outcome.passed, outcome.reason[:len(reason)].replace("self signed", "self-signed")) == (False, reason)
    assert prober.probe(http(server.address, ca_file=ca_file, server_name=name, verify=False)).passed


@needs_openssl
def test_https_with_a_certificate_of_ours(prober: Prober, serve: Serve, pair: Pair, tmp_path: Path) -> None:
    ours = make_pair(tmp_path, "ours", "checker.example")
    context = server_context(pair)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours.certificate)
    address = serve(says(answer()), context=context).address
    assert prober.probe(http(address, verify=False, certificate=str(ours.certificate), key=str(ours.key))).passed
    assert not prober.probe(http(address, verify=False)).passed


@needs_openssl
def test_https_drips_are_ended_too(prober: Prober, serve: Serve, pair: Pair) -> None:
    server = serve(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), context=server_context(pair))
    assert timed(prober, http(server.address, timeout_s=SHORT_TLS_S, verify=False))[:2] == (False, "no answer within 1.5 s")


def test_https_from_a_server_that_does_not_speak_it(prober: Prober, serve: Serve) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        address = Address("127.0.0.1", silent.getsockname()[1], tls=True)
        assert timed(prober, http(address, timeout_s=SHORT_TLS_S))[:2] == (False, "no TLS handshake within 1.5 s")
    outcome = timed(prober, http(Address("127.0.0.1", plain_talker(), tls=True)))
    assert not outcome.passed and outcome.reason.startswith("TLS handshake: ")


def plain_talker() -> int:
    """The port of a server that says something that is not TLS, once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with listener:
            connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.recv(4096)

    threading.Thread(target=talk, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_missing_file_of_authorities_is_named(prober: Prober) -> None:
    outcome = prober.probe(http(Address("127.0.0.1", 1, tls=True), ca_file="/nowhere/ca.pem"))
    assert not outcome.passed and "/nowhere/ca.pem" in outcome.reason
