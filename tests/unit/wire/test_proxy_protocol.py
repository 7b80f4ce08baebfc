"""The PROXY protocol: every case of tests/wire, what is written read again, and both ways against HAProxy.

The cases are in `tests/wire/{valid,invalid}/proxy_protocol/`. Expectations beside those of `tests/wire/corpus.py`:

- valid: `source` and `destination`, left out where the connection's own count; `rest`, what follows the header
- invalid: `refused_at`, the number of bytes with which the refusal comes, and not sooner
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fuzz import fuzz_wire, invariants
from fuzz.mutation import mutate, seeds
from prefork_lb import errors
from prefork_lb.errors import BadRequest, InvariantError
from prefork_lb.wire import proxy_protocol
from prefork_lb.wire.proxy_protocol import Parsed, SocketAddress, header, parse
from tests.wire.corpus import Case, cases, latin

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VALID = cases("valid", "proxy_protocol")
INVALID = cases("invalid", "proxy_protocol")
DOCUMENTED = ("192.0.2.1", 56324), ("198.51.100.2", 443)


def read(data: bytes, piece: int = 0) -> tuple[Parsed | None, int]:
    """What is made of `data` that comes in pieces (0: whole), and after how many bytes."""
    step = piece or max(1, len(data))
    for end in range(step, len(data) + step, step):
        found = parse(data[:end])
        if found is not None:
            return found, min(end, len(data))
    return None, len(data)


def expected(case: Case) -> Parsed | None:
    if not case.is_complete:
        return None
    source, destination = case.expected.get("source"), case.expected.get("destination")
    length = len(case.data) - len(latin(case.expected.get("rest", "")))
    return Parsed(tuple(source) if source else None, tuple(destination) if destination else None, length)


@pytest.mark.parametrize("piece", [0, 1, 7], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("case", VALID, ids=str)
def test_valid(case: Case, piece: int) -> None:
    found, _ = read(case.data, piece)
    assert found == expected(case)


@pytest.mark.parametrize("case", [case for case in VALID if case.is_complete], ids=str)
def test_a_header_is_known_with_its_last_byte(case: Case) -> None:
    found, seen = read(case.data, 1)
    assert found is not None and seen == found.length


@pytest.mark.parametrize("piece", [0, 1, 7], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("case", INVALID, ids=str)
def test_invalid(case: Case, piece: int) -> None:
    with pytest.raises(errors.ProxyError) as caught:
        read(case.data, piece)
    assert type(caught.value) is BadRequest
    if piece == 0:  # in pieces the message shows less of the line
        assert case.expected["message"] in str(caught.value)


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_the_refusal_comes_with_the_first_byte_that_cannot_be(case: Case) -> None:
    refused_at = case.expected["refused_at"]
    assert 0 < refused_at <= len(case.data)
    assert read(case.data[: refused_at - 1], 1) == (None, refused_at - 1)
    with pytest.raises(BadRequest):
        parse(case.data[:refused_at])


def test_the_corpus_is_whole() -> None:
    assert len(VALID) >= 40 and len(INVALID) >= 100
    assert all(case.expected["rule"] for case in [*VALID, *INVALID])
    for version in ("v1_", "v2_"):
        assert all(any(case.name.startswith(version) for case in folder) for folder in (VALID, INVALID))


# Headers that we write.


@pytest.mark.parametrize(
    ("version", "source", "destination", "wire"),
    [
        (1, *DOCUMENTED, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        (1, ("2001:db8::1", 1), ("::", 65535), b"PROXY TCP6 2001:db8::1 :: 1 65535\r\n"),
        # 2.1 knows hexadecimal groups only, while the system writes a mapped address with dots.
        (1, ("::1", 1), ("192.0.2.1", 0), b"PROXY TCP6 ::1 0:0:0:0:0:ffff:c000:201 1 0\r\n"),
        (1, ("::ffff:192.0.2.1", 1), ("::1", 2), b"PROXY TCP6 0:0:0:0:0:ffff:c000:201 ::1 1 2\r\n"),
        (1, None, None, b"PROXY UNKNOWN\r\n"),
        (1, DOCUMENTED[0], None, b"PROXY UNKNOWN\r\n"),
        (2, *DOCUMENTED, SIGNATURE + bytes.fromhex("2111000cc0000201c6336402dc0401bb")),
        (
            2,
            ("192.0.2.1", 1),
            ("2001:db8::1", 2),
            SIGNATURE + bytes.fromhex("21210024" + "00" * 10 + "ffffc0000201" + "20010db8" + "00" * 11 + "01" + "00010002"),
        ),
        (2, None, None, SIGNATURE + b"\x20\x00\x00\x00"),
        (2, None, DOCUMENTED[1], SIGNATURE + b"\x20\x00\x00\x00"),
    ],
)
def test_header(version: int, source: SocketAddress | None, destination: SocketAddress | None, wire: bytes) -> None:
    assert header(version, source, destination) == wire


@pytest.mark.parametrize("version", [1, 2])
def test_a_zone_stays_on_this_host(version: int) -> None:
    assert header(version, ("fe80::1%eth0", 1), ("fe80::2%7", 2)) == header(version, ("fe80::1", 1), ("fe80::2", 2))


@pytest.mark.parametrize("version", [-1, 0, 3])
def test_other_versions_cannot_be_sent(version: int) -> None:
    for addresses in (DOCUMENTED, (None, None)):
        with pytest.raises(InvariantError, match=f"no version {version}"):
            header(version, *addresses)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "bad",
    [("localhost", 1), ("", 1), ("192.0.2.1 ", 1), ("192.0.2.1\0", 1), ("::g", 1), ("192.0.2.1", -1), ("::1", 65536)],
    ids=repr,
)
def test_what_is_no_address_cannot_be_sent(bad: SocketAddress, version: int) -> None:
    for addresses in ((bad, DOCUMENTED[1]), (DOCUMENTED[0], bad)):
        with pytest.raises(InvariantError, match="PROXY header"):
            header(version, *addresses)


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def random_ip(rng: random.Random) -> IPAddress:
    if rng.random() < 0.5:
        return ipaddress.IPv4Address(rng.randbytes(4))
    # Groups of zeros are where the ways to write an address differ; some begin like a mapped one.
    groups = [rng.choice((0, 0, 0, 1, 0xFFFF, rng.getrandbits(16))) for _ in range(8)]
    return ipaddress.IPv6Address(struct.pack("!8H", *groups))


def as_sent(pair: tuple[IPAddress, IPAddress]) -> list[bytes]:
    packed = [ip.packed for ip in pair]
    return packed if len(packed[0]) == len(packed[1]) else [ip.rjust(6, b"\xff").rjust(16, b"\0") for ip in packed]


def random_address(rng: random.Random) -> SocketAddress:
    return str(random_ip(rng)), rng.choice((0, 1, 80, 65535, rng.randrange(65536)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_written_is_read_again(version: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(300):
        source, destination = random_address(rng), random_address(rng)
        wire = header(version, source, destination)
        assert len(wire) <= 107
        found, seen = read(wire + rng.randbytes(rng.randrange(40)), 1)
        assert found is not None and found.source is not None and found.destination is not None
        assert found.length == seen == len(wire)
        assert (found.source[1], found.destination[1]) == (source[1], destination[1])
        ips = [ipaddress.ip_address(text) for text in (found.source[0], found.destination[0])]
        assert [ip.packed for ip in ips] == as_sent((ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])))
        # Once read, the text is the system's, and a second time changes nothing.
        again = parse(header(version, found.source, found.destination))
        assert again == Parsed(found.source, found.destination, len(wire))


@pytest.mark.parametrize("seed", range(3))
def test_text_is_an_address_exactly_when_the_standard_library_says_so(seed: int) -> None:
    """`ipaddress` is written apart from the system's inet_pton; the two must agree on what is nearly an address."""
    rng = random.Random(seed)
    verdicts = {True: 0, False: 0}
    for _ in range(3000):
        text = random_address(rng)[0]
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(text) + 1)
            piece = rng.choice(["", "0", "00", "1", "f", ":", "::", ".", ".1", "256", "g"])
            text = text[:at] + piece + text[at + rng.randrange(2) :]
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            ip = None
        for family, other, version in ((b"TCP4", b"192.0.2.9", 4), (b"TCP6", b"::9", 6)):
            line = b"PROXY %b %b %b 1 2\r\n" % (family, text.encode(), other)
            if ip is not None and ip.version == version and len(line) <= 107:
                found = parse(line)
                assert found is not None and found.source is not None
                assert ipaddress.ip_address(found.source[0]) == ip
                verdicts[True] += 1
            else:
                with pytest.raises(BadRequest):
                    parse(line)
                verdicts[False] += 1
    assert min(verdicts.values()) > 500


# Headers of version 2 as others write them, with TLVs.


def crc32c(data: bytes) -> int:
    """Bit by bit, after RFC 3720 12.1: nothing in common with the code under test."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if (crc ^ byte >> bit) & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def random_header(rng: random.Random) -> tuple[bytes, tuple[IPAddress, int], tuple[IPAddress, int], range]:
    """A header with a checksum among other TLVs; its addresses; where the checksum stands."""
    ip = rng.choice((ipaddress.IPv4Address, ipaddress.IPv6Address))
    size = 4 if ip is ipaddress.IPv4Address else 16
    source, destination = ((ip(rng.randbytes(size)), rng.randrange(65536)) for _ in range(2))
    block = source[0].packed + destination[0].packed + struct.pack("!HH", source[1], destination[1])
    tlvs = [tlv(rng.choice((1, 2, 4, 5, 0x20, 0x30, 0xE0)), rng.randbytes(rng.randrange(20))) for _ in range(rng.randrange(4))]
    before = block + b"".join(tlvs[:1])
    block = before + tlv(3, bytes(4)) + b"".join(tlvs[1:])
    wire = SIGNATURE + bytes((0x21, 0x11 if size == 4 else 0x21)) + struct.pack("!H", len(block)) + block
    start = 16 + len(before) + 3
    return wire[:start] + struct.pack("!I", crc32c(wire)) + wire[start + 4 :], source, destination, range(start, start + 4)


def test_the_checksum_of_this_test_is_that_of_the_standard() -> None:
    # RFC 3720 B.4, and the check value of the catalogues of CRCs.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("seed", range(3))
def test_tlvs_are_skipped_and_the_checksum_holds(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        wire, source, destination, _ = random_header(rng)
        found, seen = read(wire + b"GET /", 1)
        assert found is not None and found.source is not None and found.destination is not None
        assert seen == found.length == len(wire)
        assert (ipaddress.ip_address(found.source[0]), found.source[1]) == source
        assert (ipaddress.ip_address(found.destination[0]), found.destination[1]) == destination


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_does_not_pass_the_checksum(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(30):
        wire, _, _, checksum = random_header(rng)
        addresses = range(16, 16 + (12 if wire[13] == 0x11 else 36))
        for position in (*addresses, *checksum):
            flipped = bytearray(wire)
            flipped[position] ^= 1 << rng.randrange(8)
            with pytest.raises(BadRequest, match="does not match its checksum"):
                parse(bytes(flipped))


def test_an_error_does_not_repeat_what_came_without_a_bound() -> None:
    for data in (b"GET " + b"a" * 100_000, b"PROXY UNKNOWN " + b"\\" * 100_000, b"PROXY " + b"\xff" * 100_000):
        with pytest.raises(BadRequest) as caught:
            parse(data)
        assert len(str(caught.value)) < 600


# The fuzzer's target.


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_input_breaks_an_invariant(seed: int) -> None:
    rng, pool = random.Random(seed), seeds()["proxy_protocol"]
    number = [name for name, _ in fuzz_wire.TARGETS].index("proxy_protocol")
    verdicts = [fuzz_wire.run_one(bytes((number,)) + mutate(rng.choice(pool), pool, rng)) for _ in range(1500)]
    assert verdicts.count(True) > 200 and verdicts.count(False) > 200


def longer(data: bytes) -> Parsed | None:
    found = parse(data)
    return found and Parsed(found.source, found.destination, found.length + 1)


def forgetful(data: bytes) -> Parsed | None:
    return parse(data) if len(data) != 28 else None


def impatient(data: bytes) -> Parsed | None:
    return parse(data + b"\r\n" if data.startswith(b"PROXY TCP4") and not data.endswith(b"\r\n") else data)


@pytest.mark.parametrize("broken", [longer, forgetful, impatient], ids=lambda function: function.__name__)
def test_a_fault_is_found(broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "parse", broken)
    with pytest.raises(AssertionError):
        for data in seeds()["proxy_protocol"]:
            invariants.check_proxy_header(data)
    monkeypatch.undo()
    for data in seeds()["proxy_protocol"]:
        invariants.check_proxy_header(data)


def test_a_fault_in_writing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(version: int, source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
        return proxy_protocol.header(version, destination, source)

    monkeypatch.setattr(invariants, "header", swapped)
    with pytest.raises(AssertionError):
        for data in seeds()["proxy_protocol"]:
            invariants.check_proxy_header(data)


# A real HAProxy, as the proxy in front and as the server behind.

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
        while not (data.endswith(marker) if marker else parse(data)):
            piece = connection.recv(1)  # a byte at a time: each must be taken for what it is
            assert piece, f"closed after {data!r}"
            data += piece
            parse(data)
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
        found = parse(data)
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
    found = parse(data)
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
    ours = parse(case.data)
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
    theirs, _ = addresses_read_by(haproxy.answers, header(version, source, destination))
    assert theirs is not None
    packed = [ipaddress.ip_address(text).packed for text, _ in theirs]
    assert packed == as_sent((ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])))
    assert (theirs[0][1], theirs[1][1]) == (7, 443)


def test_haproxy_takes_a_line_without_addresses(haproxy: HAProxy) -> None:
    theirs, own = addresses_read_by(haproxy.answers, header(1, None, None))
    assert theirs == (own, haproxy.answers)
