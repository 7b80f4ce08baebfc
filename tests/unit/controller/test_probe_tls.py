"""Checks over TLS."""
from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from prefork_lb.controller.probe import Prober
from prefork_lb.net.address import Address
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.unit.controller.answering import SHORT_TLS_S, Serve, answer, drips, http, says, timed


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


def test_files_that_are_gone_say_nothing_about_the_server(prober: Prober, tmp_path: Path) -> None:
    """A controller that starts anew reads them itself. If it called all servers down, nothing would be served."""
    outcome = prober.probe(http(Address("127.0.0.1", 1, tls=True), ca_file=str(tmp_path / "gone.pem")))
    assert outcome.passed is None and "gone.pem: no certificates of authorities" in outcome.reason
