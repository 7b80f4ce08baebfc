"""The reply gives its lease back exactly once, whatever its end, and keeps a connection only when that is safe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.errors import ClientGone, TruncatedBody
from prefork_lb.net.address import Address
from prefork_lb.proxy.inbound import BodyReader
from prefork_lb.proxy.reply import Reply
from prefork_lb.upstream.lease import Lease
from prefork_lb.wire.framing import response_framing
from prefork_lb.wire.head import Fields, HeadLimits
from prefork_lb.wire.parse import parse_response
from prefork_lb.worker.response_heads import reply_block
from tests.support.watched import Watching
from tests.unit.proxy.loopback import DEADLINE_S, Loopback
from tests.unit.proxy.rig import Rig

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig(Address("127.0.0.1", 1)) as made:
        yield made


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as made:
        yield made


@pytest.fixture
def lease(rig: Rig, loopback: Loopback) -> Lease:
    taken = rig.lease()
    taken.stream = loopback.stream
    assert rig.in_flight == [1]
    return taken


def reply_of(
    lease: Lease, head: bytes, rest: bytes = b"", method: bytes = b"GET", request_sent: bool = True, gone: bool = False
) -> Reply:
    assert lease.stream is not None
    parsed = parse_response(head, HeadLimits())
    framing = response_framing(parsed, method)
    contents = BodyReader(lease.stream, framing, rest, HeadLimits(), DEADLINE_S, Watching(lambda: gone))
    return Reply(parsed, framing, contents, b"", lease, request_sent, b"lb")


def is_closed(loopback: Loopback) -> bool:
    """Whether the connection to the server was closed."""
    loopback.peer.setblocking(False)
    try:
        return loopback.peer.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False
    finally:
        loopback.peer.settimeout(DEADLINE_S)


def failures(rig: Rig) -> int:
    return sum(rig.ledger._failures)  # no public reader yet


def assert_given_back(rig: Rig, loopback: Loopback, kept: bool, failed: bool = False) -> None:
    assert rig.in_flight == [0]
    assert rig.idle == [int(kept)]
    assert is_closed(loopback) is not kept
    assert failures(rig) == int(failed)


def test_the_lease_is_held_while_the_body_comes(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH, b"he")
    assert reply.read() == b"he"
    assert not reply.is_received
    assert rig.in_flight == [1]
    reply.close()


def test_the_lease_is_given_back_with_the_last_byte_received(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH, b"he")
    reply.read()
    loopback.peer.sendall(b"llo")
    assert reply.read() == b"llo"
    assert_given_back(rig, loopback, kept=True)
    assert reply.read() == b""
    reply.close()
    reply.close()
    assert rig.in_flight == [0] and rig.idle == [1]


def test_a_body_that_came_with_its_head_holds_nothing(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH, b"hello")
    assert reply.is_received
    assert_given_back(rig, loopback, kept=True)
    assert reply.read() == b"hello"
    reply.close()
    assert rig.idle == [1]


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (EMPTY, b"GET"),
        (LENGTH, b"HEAD"),
        (CHUNKED, b"HEAD"),
        (CLOSE, b"HEAD"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET"),
    ],
)
def test_a_response_without_body_is_over_at_once(
    rig: Rig, loopback: Loopback, lease: Lease, head: bytes, method: bytes
) -> None:
    reply = reply_of(lease, head, method=method)
    assert_given_back(rig, loopback, kept=True)
    assert reply.read() == b""
    reply.close()


@pytest.mark.parametrize("head", [LENGTH, CHUNKED, CLOSE])
def test_a_client_that_leaves_closes_the_servers_connection(
    rig: Rig, loopback: Loopback, lease: Lease, head: bytes
) -> None:
    reply_of(lease, head).close()
    assert_given_back(rig, loopback, kept=False)


def test_a_client_that_is_seen_to_have_left_is_no_failure(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH, gone=True)
    loopback.stream.close()  # so that reading ends at once
    reply.close()
    assert rig.in_flight == [0] and failures(rig) == 0


@pytest.mark.parametrize(("head", "part"), [(LENGTH, b"hel"), (CHUNKED, b"5\r\nhel"), (CHUNKED, b"zz\r\n")])
def test_a_broken_body_fails_the_lease_once(
    rig: Rig, loopback: Loopback, lease: Lease, head: bytes, part: bytes
) -> None:
    reply = reply_of(lease, head)
    loopback.say(part)
    with pytest.raises(TruncatedBody):
        while reply.read():
            pass
    assert_given_back(rig, loopback, kept=False, failed=True)
    reply.close()
    assert rig.in_flight == [0] and failures(rig) == 1


def test_an_unexpected_error_leaves_the_lease_to_close(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH)
    loopback.stream.receive_or = _interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        reply.read()
    assert rig.in_flight == [1]
    reply.close()
    assert_given_back(rig, loopback, kept=False)


def _interrupted(*_: object) -> bytes:
    raise KeyboardInterrupt


def test_a_client_gone_in_the_middle_is_not_the_servers_failure(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, LENGTH)

    def gone(*_: object) -> None:
        return None

    loopback.stream.receive_or = gone  # type: ignore[method-assign]
    with pytest.raises(ClientGone):
        reply.read()
    reply.close()
    assert_given_back(rig, loopback, kept=False)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (EMPTY, True),
        (EMPTY[:-2] + b"Connection: close\r\n\r\n", False),
        (EMPTY[:-2] + b"Connection: X-A, Close\r\n\r\n", False),
        (EMPTY[:-2] + b"Connection: X-A\r\nConnection: close\r\n\r\n", False),
        (EMPTY[:-2] + b"Connection: keep-alive\r\n\r\n", True),
        (EMPTY[:-2] + b"Connection: closed\r\n\r\n", True),
        (EMPTY.replace(b"1.1", b"1.0"), False),
        (EMPTY.replace(b"1.1", b"1.0")[:-2] + b"Connection: Keep-Alive\r\n\r\n", True),
        (EMPTY.replace(b"1.1", b"1.0")[:-2] + b"Connection: keep-alive, close\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_when_both_sides_may_go_on(
    rig: Rig, loopback: Loopback, lease: Lease, head: bytes, kept: bool
) -> None:
    reply_of(lease, head).close()
    assert_given_back(rig, loopback, kept=kept)


def test_a_connection_is_not_kept_when_the_request_was_not_sent_whole(
    rig: Rig, loopback: Loopback, lease: Lease
) -> None:
    reply_of(lease, EMPTY, request_sent=False).close()
    assert_given_back(rig, loopback, kept=False)


@pytest.mark.parametrize(
    ("head", "rest"), [(EMPTY, b"x"), (LENGTH, b"hellox"), (CHUNKED, b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")]
)
def test_a_connection_out_of_step_is_not_kept(
    rig: Rig, loopback: Loopback, lease: Lease, head: bytes, rest: bytes
) -> None:
    reply_of(lease, head, rest).close()
    assert_given_back(rig, loopback, kept=False)


def test_a_body_until_close_ends_with_its_connection(rig: Rig, loopback: Loopback, lease: Lease) -> None:
    reply = reply_of(lease, CLOSE, b"he")
    loopback.say(b"llo")
    assert b"".join(iter(reply.read, b"")) == b"hello"
    assert_given_back(rig, loopback, kept=False)


def test_trailers_are_there_at_the_end(lease: Lease) -> None:
    reply = reply_of(lease, CHUNKED, b"0\r\nX-Sum: 1\r\n\r\n")
    assert reply.trailers == [(b"X-Sum", b"1")]
    reply.close()


def fields_of(
    lease: Lease, block: bytes, status: bytes = b"200 OK", minor: bytes = b"1", method: bytes = b"GET"
) -> Fields:
    reply = reply_of(lease, b"HTTP/1.%b %b\r\n%b\r\n" % (minor, status, block), method=method)
    reply.close()
    return list(reply.fields)


def test_end_to_end_fields_travel_in_order(lease: Lease) -> None:
    block = (
        b"Server: s\r\nConnection: X-Hop, Set-Cookie\r\nSet-Cookie: a\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: x\r\nSet-Cookie: b\r\nDate: d\r\n"
    )
    assert fields_of(lease, block) == [
        (b"Server", b"s"),
        (b"Set-Cookie", b"a"),
        (b"Set-Cookie", b"b"),
        (b"Date", b"d"),
        (b"Via", b"1.1 lb"),
    ]


def test_via_names_the_version_received(lease: Lease) -> None:
    assert fields_of(lease, b"Via: 1.1 x\r\n", minor=b"0") == [(b"Via", b"1.1 x, 1.0 lb")]


@pytest.mark.parametrize(
    ("block", "status", "method", "length"),
    [
        (b"Content-Length: 005\r\n", b"200 OK", b"GET", b"5"),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"200 OK", b"GET", b"5"),
        (b"Content-Length: 5\r\n", b"200 OK", b"HEAD", b"5"),
        (b"Content-Length: 5\r\n", b"304 Not Modified", b"GET", b"5"),
        (b"Content-Length: 5\r\n", b"204 No Content", b"GET", None),
        (b"", b"200 OK", b"HEAD", None),
        (b"", b"304 Not Modified", b"GET", None),
        (b"", b"200 OK", b"GET", None),
        (b"Transfer-Encoding: chunked\r\n", b"200 OK", b"GET", None),
        (b"Transfer-Encoding: chunked\r\n", b"200 OK", b"HEAD", None),
    ],
)
def test_the_length_is_told_once_and_plainly(
    lease: Lease, block: bytes, status: bytes, method: bytes, length: bytes | None
) -> None:
    expected = [(b"Via", b"1.1 lb")] + ([] if length is None else [(b"Content-Length", length)])
    assert fields_of(lease, block, status, method=method) == expected


def test_a_head_that_comes_again_gives_the_same_fields_for_every_framing(rig: Rig) -> None:
    head = parse_response(LENGTH, HeadLimits())  # heads are remembered and shared between replies
    for method in (b"GET", b"HEAD", b"GET"):
        with Loopback() as loopback:
            lease = rig.lease()
            lease.stream = loopback.stream
            framing = response_framing(head, method)
            reply = Reply(
                head,
                framing,
                BodyReader(loopback.stream, framing, b"", HeadLimits(), DEADLINE_S, Watching(lambda: False)),
                b"",
                lease,
                True,
                b"lb",
            )
            assert list(reply.fields) == [(b"Via", b"1.1 lb"), (b"Content-Length", b"5")]
            reply.close()
    assert rig.in_flight == [0]


def test_what_a_route_takes_out_of_a_response_stays_in_the_head_that_comes_again(rig: Rig) -> None:
    fields = b"Server: s\r\nDate: d\r\nX-A: 1\r\nServer: t\r\nContent-Length: 0\r\n"
    head = parse_response(b"HTTP/1.1 200 OK\r\n%b\r\n" % fields, HeadLimits())
    removals: list[tuple[frozenset[bytes], bytes]] = [
        (frozenset(), b"std1"), (frozenset((b"server",)), b"d1"), (frozenset((b"x-none",)), b"std1"),
        (frozenset((b"server", b"x-a")), b"d"), (frozenset((b"date",)), b"st1N"), (frozenset(), b"std1"),
    ]
    for removed, left in removals * 3:
        with Loopback() as loopback:
            lease = rig.lease()
            lease.stream = loopback.stream
            reply = Reply(head, response_framing(head, b"GET"), None, b"", lease, True, b"lb")
            reply.change_fields(removed, [(b"X-Own", b"o")])
            told = parse_response(reply_block(reply, lambda: b"N") + b"\r\n", HeadLimits()).fields
            values = [value for name, value in told if name not in (b"Via", b"Content-Length")]
            assert sorted(values) == sorted(b"%c" % byte for byte in left)
            assert [value for name, value in reply.fields if name not in (b"Via", b"Content-Length")] == [
                value for value in values if value != b"N"]
            assert list(reply.added) == [(b"X-Own", b"o")]
            reply.close()
