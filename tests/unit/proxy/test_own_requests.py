"""What filters ask other servers."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from prefork_lb.filters import NoAnswer
from prefork_lb.proxy.own_requests import OwnRequests
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.support.descriptors import no_descriptor_left
from tests.support.tls import scripted_tls_server
from tests.unit.proxy.loopback import DEADLINE_S, Connection, ScriptedServer
from tests.unit.proxy.rig import Rig


@contextmanager
def asked(script: Callable[[Connection], None]) -> Iterator[tuple[OwnRequests, str]]:
    """The client, and the URL of a server with this script."""
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer(script))
        rig = stack.enter_context(Rig(server.address))
        yield OwnRequests(rig.settings), f"http://{server.address}"


def test_a_whole_answer_comes_back_whatever_its_framing() -> None:
    heads: list[bytes] = []

    def script(connection: Connection) -> None:
        heads.append(connection.head())
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"2\r\nab\r\n")
        connection.send(b"1\r\nc\r\n0\r\n\r\n")

    with asked(script) as (http, url):
        answer = http.get(f"{url}/a?b", {"X-Key": "1"}, DEADLINE_S)
    assert (answer.status, answer.body, answer.fields.get("x-a")) == (404, b"abc", "1")
    assert heads[0].startswith(b"GET /a?b HTTP/1.1\r\nHost: 127.0.") and b"\r\nX-Key: 1\r\nConnection: close\r\n" in heads[0]


def test_a_body_is_sent_with_its_length() -> None:
    bodies: list[bytes] = []

    def script(connection: Connection) -> None:
        head = connection.head()
        bodies.append(head[-30:] + connection.body(4))
        connection.send(b"HTTP/1.0 200 OK\r\n\r\nto the end")

    with asked(script) as (http, url):
        assert http.request("POST", url, body=b"body", timeout_s=DEADLINE_S).body == b"to the end"
    assert bodies[0].endswith(b"Connection: close\r\n\r\nbody")


@pytest.mark.parametrize("sent", [
    b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"nonsense\r\n\r\n"])
def test_half_an_answer_is_none(sent: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(sent)

    with asked(script) as (http, url), pytest.raises(NoAnswer):
        http.get(url, timeout_s=DEADLINE_S)


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_told() -> None:
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        over.wait(DEADLINE_S)

    with asked(script) as (http, url):
        with pytest.raises(NoAnswer, match="within"):
            http.get(url, timeout_s=0.05)
        over.set()


def test_nobody_who_listens_is_no_answer() -> None:
    with asked(lambda connection: None) as (http, url):
        pass
    with pytest.raises(NoAnswer, match="connect"):
        http.get(url)


def test_a_longer_answer_than_fits_is_no_answer() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20) + b"x")

    with asked(script) as (http, url), pytest.raises(NoAnswer, match="longer than 1048576 bytes"):
        http.get(url, timeout_s=DEADLINE_S)


def test_without_a_descriptor_there_is_no_answer_and_the_next_request_has_one() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with asked(script) as (http, url):
        with no_descriptor_left(), pytest.raises(NoAnswer, match="Too many open files"):
            http.get(url, timeout_s=DEADLINE_S)
        # Another server: the first one's accept may have failed as well.
        with ScriptedServer(script) as server:
            assert http.get(f"http://{server.address}", timeout_s=DEADLINE_S).body == b"ok"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The certificate of localhost, in which alone this process believes."""
    pair = make_pair(tmp_path, "authority", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return pair


TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nto the end"


@needs_openssl
def test_https_is_for_a_server_that_shows_who_it_is(authority: Pair, tmp_path: Path) -> None:
    stranger = make_pair(tmp_path, "stranger", "localhost")
    with asked(lambda connection: None) as (http, _):
        with scripted_tls_server(authority, TO_THE_END, says_end=True) as port:
            assert http.get(f"https://localhost:{port}/a", timeout_s=DEADLINE_S).body == b"to the end"
            with pytest.raises(NoAnswer, match="certificate"):  # it is not for this name
                http.get(f"https://127.0.0.1:{port}/a", timeout_s=DEADLINE_S)
        with scripted_tls_server(stranger, TO_THE_END, says_end=True) as port, pytest.raises(NoAnswer, match="certificate"):
            http.get(f"https://localhost:{port}/a", timeout_s=DEADLINE_S)


@needs_openssl
def test_an_answer_that_is_cut_off_is_none(authority: Pair) -> None:
    with (asked(lambda connection: None) as (http, _), scripted_tls_server(authority, TO_THE_END, says_end=False) as port,
          pytest.raises(NoAnswer)):
        http.get(f"https://localhost:{port}/", timeout_s=DEADLINE_S)


@needs_openssl
def test_the_first_request_by_https_may_find_no_descriptor(authority: Pair) -> None:
    """It is the one that reads the certificates of authorities."""
    with asked(lambda connection: None) as (http, _):
        with no_descriptor_left(), pytest.raises(NoAnswer, match="no certificates of authorities"):
            http.get("https://localhost:1/", timeout_s=DEADLINE_S)
        with scripted_tls_server(authority, TO_THE_END, says_end=True) as port:
            assert http.get(f"https://localhost:{port}/", timeout_s=DEADLINE_S).body == b"to the end"


@pytest.mark.parametrize(("url", "method", "field"), [
    ("ftp://a/", "GET", {}), ("a", "GET", {}), ("http:///x", "GET", {}), ("http://u:p@a/", "GET", {}), ("http://a/ b", "GET", {}),
    ("http://a/", "G T", {}), ("http://a/", "CONNECT", {}), ("http://a/", "GET", {"X": "a\r\nb"}),
    ("http://a/", "GET", {"Host": "b"}),
])
def test_what_is_no_request_is_not_sent(url: str, method: str, field: dict[str, str]) -> None:
    with asked(lambda connection: None) as (http, _), pytest.raises(ValueError):
        http.request(method, url, field)


