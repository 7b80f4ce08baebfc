"""h11 as a second opinion: whatever we accept, it accepts, and reads the same in it.

Where it accepts what we refuse, that is on purpose; `STRICTER` lists it. Where it is the stricter one there is
one case, `LAXER`. Inputs are the corpus and mutations of it, by seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import h11
import pytest

from fuzz.mutation import mutate, seeds
from prefork_lb.errors import ProxyError
from prefork_lb.wire.framing import Framing, FramingKind
from prefork_lb.wire.head import Fields
from tests.wire.reading import read_chunked, read_request, read_response

SEEDS = range(6)
EACH = 1500
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
# RFC 9112 7.1.1 allows blanks between a size and its extension (BWS); h11 does not know them.
LAXER = re.compile(rb"[0-9A-Fa-f][ \t]+;")
FRAMING = (b"content-length", b"transfer-encoding")


def inputs(kind: str, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    pool = seeds()[kind]
    if seed == 0:
        yield from pool
    for _ in range(EACH):
        yield mutate(rng.choice(pool), pool, rng)


def end_to_end(fields: Fields) -> Fields:
    """Names as h11 gives them, without those that it writes anew."""
    return [(name.lower(), value) for name, value in fields if name.lower() not in FRAMING]


def framing_of(headers: Fields) -> Framing | None:
    """As h11 left the fields; None where the message has none."""
    values = dict(headers)
    if values.get(b"transfer-encoding"):
        return Framing(FramingKind.CHUNKED)
    return Framing(FramingKind.LENGTH, int(values[b"content-length"])) if b"content-length" in values else None


def h11_request(data: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    return event


def h11_response(data: bytes, method: bytes) -> h11.Response | h11.InformationalResponse:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a.test")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse), event
    return event


def h11_chunked(data: bytes) -> tuple[bytes, Fields]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(CHUNKED_HEAD + data)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            return body, list(event.headers)
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert isinstance(event, h11.Request), event


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_that_we_accept_means_the_same_to_h11(seed: int) -> None:
    accepted = 0
    for data in inputs("request", seed):
        try:
            reading = read_request(data)
        except ProxyError:
            continue
        if reading is None:
            continue
        accepted += 1
        event = h11_request(data)
        head = reading.head
        assert (bytes(event.method), bytes(event.target)) == (head.method, head.target)
        assert int(event.http_version[2:]) == head.minor or int(event.http_version[2:]) > 1
        assert end_to_end(list(event.headers)) == end_to_end(head.fields)
        expected = None if reading.framing.kind is FramingKind.NONE else reading.framing
        assert framing_of(list(event.headers)) == expected
    assert accepted > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_response_that_we_accept_means_the_same_to_h11(seed: int) -> None:
    accepted = 0
    for data in inputs("response", seed):
        for method in (b"GET", b"HEAD"):
            try:
                reading = read_response(data, method)
            except ProxyError:
                continue
            if reading is None:
                continue
            accepted += 1
            event = h11_response(data, method)
            head = reading.head
            assert (event.status_code, bytes(event.reason)) == (head.status, head.reason)
            assert end_to_end(list(event.headers)) == end_to_end(head.fields)
            if reading.framing.kind is not FramingKind.NONE:
                expected = None if reading.framing.kind is FramingKind.CLOSE else reading.framing
                assert framing_of(list(event.headers)) == expected
    assert accepted > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chunked_body_that_we_accept_means_the_same_to_h11(seed: int) -> None:
    accepted = 0
    for data in inputs("chunked", seed):
        try:
            reading = read_chunked(data)
        except ProxyError:
            continue
        if not reading.done or LAXER.search(data):
            continue
        accepted += 1
        body, trailers = h11_chunked(data)
        assert body == reading.data
        assert end_to_end(trailers) == end_to_end(reading.trailers)
    assert accepted > 100


# What h11 takes and we do not, and why.
STRICTER = {
    "LF alone ends a line (RFC 9112 2.2: may be taken; readers differ)": b"GET / HTTP/1.1\nHost: a.test\n\n",
    "a folded line (RFC 9112 5.2: refuse, or replace by blanks)": b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n 2\r\n\r\n",
    "both framings (RFC 9112 6.1: may be refused)": CHUNKED_HEAD[:-2] + b"Content-Length: 5\r\n\r\n",
    "a control byte in a value (RFC 9110 5.5: refuse, or replace)": b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: \x01\r\n\r\n",
    "DEL in a value (RFC 9110 5.5)": b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: \x7f\r\n\r\n",
    "a transfer coding in HTTP/1.0 (RFC 9112 6.1: faulty)": CHUNKED_HEAD.replace(b"1.1", b"1.0"),
    "a target of no form (RFC 9112 3.2)": b"GET a HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a fragment in the target (RFC 9112 3.2)": b"GET /#a HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "an invalid Host (RFC 9112 3.2)": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "HTTP/2.0 (RFC 9110 15.6.6)": b"GET / HTTP/2.0\r\nHost: a.test\r\n\r\n",
    "a tunnel (RFC 9110 9.3.6)": b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "more than 100 fields": b"GET / HTTP/1.1\r\nHost: a.test\r\n" + b"A: 1\r\n" * 100 + b"\r\n",
}
STRICTER_CHUNKED = {
    "blanks behind a size (RFC 9112 7.1: none)": b"1 \r\na\r\n0\r\n\r\n",
    "anything in an extension (RFC 9112 7.1.1)": b"1;\x01\r\na\r\n0\r\n\r\n",
    "a size of 16 digits": b"0000000000000001\r\na\r\n0\r\n\r\n",
    "LF alone ends the trailers (RFC 9112 2.2)": b"0\r\nX-A: 1\n\n",
}


@pytest.mark.parametrize("data", STRICTER.values(), ids=STRICTER)
def test_what_h11_takes_and_we_refuse(data: bytes) -> None:
    assert h11_request(data)
    with pytest.raises(ProxyError):
        read_request(data)


@pytest.mark.parametrize("data", STRICTER_CHUNKED.values(), ids=STRICTER_CHUNKED)
def test_what_h11_takes_of_chunks_and_we_refuse(data: bytes) -> None:
    h11_chunked(data)
    with pytest.raises(ProxyError):
        read_chunked(data)
