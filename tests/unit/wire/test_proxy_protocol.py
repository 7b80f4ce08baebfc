"""The PROXY protocol: every case of tests/wire, and what is written read again.

The cases are in `tests/wire/{valid,invalid}/proxy_protocol/`. Expectations beside those of `tests/wire/corpus.py`:

- valid: `source` and `destination`, left out where the connection's own count; `rest`, what follows the header
- invalid: `refused_at`, the number of bytes with which the refusal comes, and not sooner
"""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest

from fuzz import fuzz_wire, invariants
from fuzz.mutation import mutate, seeds
from prefork_lb import errors
from prefork_lb.errors import BadRequest, InvariantError
from prefork_lb.wire import proxy_protocol
from prefork_lb.wire.proxy_protocol import Parsed, SocketAddress, parse_proxy_header, proxy_header
from tests.wire.corpus import Case, cases, latin

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VALID = cases("valid", "proxy_protocol")
INVALID = cases("invalid", "proxy_protocol")
DOCUMENTED = ("192.0.2.1", 56324), ("198.51.100.2", 443)


def read(data: bytes, piece: int = 0) -> tuple[Parsed | None, int]:
    """What is made of `data` that comes in pieces (0: whole), and after how many bytes."""
    step = piece or max(1, len(data))
    for end in range(step, len(data) + step, step):
        found = parse_proxy_header(data[:end])
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
        parse_proxy_header(case.data[:refused_at])


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
    assert proxy_header(version, source, destination) == wire


@pytest.mark.parametrize("version", [1, 2])
def test_a_zone_stays_on_this_host(version: int) -> None:
    assert proxy_header(version, ("fe80::1%eth0", 1), ("fe80::2%7", 2)) == proxy_header(version, ("fe80::1", 1), ("fe80::2", 2))


@pytest.mark.parametrize("version", [-1, 0, 3])
def test_other_versions_cannot_be_sent(version: int) -> None:
    for addresses in (DOCUMENTED, (None, None)):
        with pytest.raises(InvariantError, match=f"no version {version}"):
            proxy_header(version, *addresses)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "bad",
    [("localhost", 1), ("", 1), ("192.0.2.1 ", 1), ("192.0.2.1\0", 1), ("::g", 1), ("192.0.2.1", -1), ("::1", 65536)],
    ids=repr,
)
def test_what_is_no_address_cannot_be_sent(bad: SocketAddress, version: int) -> None:
    for addresses in ((bad, DOCUMENTED[1]), (DOCUMENTED[0], bad)):
        with pytest.raises(InvariantError, match="PROXY header"):
            proxy_header(version, *addresses)


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
        wire = proxy_header(version, source, destination)
        assert len(wire) <= 107
        found, seen = read(wire + rng.randbytes(rng.randrange(40)), 1)
        assert found is not None and found.source is not None and found.destination is not None
        assert found.length == seen == len(wire)
        assert (found.source[1], found.destination[1]) == (source[1], destination[1])
        ips = [ipaddress.ip_address(text) for text in (found.source[0], found.destination[0])]
        assert [ip.packed for ip in ips] == as_sent((ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])))
        # Once read, the text is the system's, and a second time changes nothing.
        again = parse_proxy_header(proxy_header(version, found.source, found.destination))
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
                found = parse_proxy_header(line)
                assert found is not None and found.source is not None
                assert ipaddress.ip_address(found.source[0]) == ip
                verdicts[True] += 1
            else:
                with pytest.raises(BadRequest):
                    parse_proxy_header(line)
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
                parse_proxy_header(bytes(flipped))


def test_an_error_does_not_repeat_what_came_without_a_bound() -> None:
    for data in (b"GET " + b"a" * 100_000, b"PROXY UNKNOWN " + b"\\" * 100_000, b"PROXY " + b"\xff" * 100_000):
        with pytest.raises(BadRequest) as caught:
            parse_proxy_header(data)
        assert len(str(caught.value)) < 600


# The fuzzer's target.


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_input_breaks_an_invariant(seed: int) -> None:
    rng, pool = random.Random(seed), seeds()["proxy_protocol"]
    number = [name for name, _ in fuzz_wire.TARGETS].index("proxy_protocol")
    verdicts = [fuzz_wire.run_one(bytes((number,)) + mutate(rng.choice(pool), pool, rng)) for _ in range(1500)]
    assert verdicts.count(True) > 200 and verdicts.count(False) > 200


def longer(data: bytes) -> Parsed | None:
    found = parse_proxy_header(data)
    return found and Parsed(found.source, found.destination, found.length + 1)


def forgetful(data: bytes) -> Parsed | None:
    return parse_proxy_header(data) if len(data) != 28 else None


def impatient(data: bytes) -> Parsed | None:
    return parse_proxy_header(data + b"\r\n" if data.startswith(b"PROXY TCP4") and not data.endswith(b"\r\n") else data)


@pytest.mark.parametrize("broken", [longer, forgetful, impatient], ids=lambda function: function.__name__)
def test_a_fault_is_found(broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "parse_proxy_header", broken)
    with pytest.raises(AssertionError):
        for data in seeds()["proxy_protocol"]:
            invariants.check_proxy_header(data)
    monkeypatch.undo()
    for data in seeds()["proxy_protocol"]:
        invariants.check_proxy_header(data)


def test_a_fault_in_writing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(version: int, source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
        return proxy_protocol.proxy_header(version, destination, source)

    monkeypatch.setattr(invariants, "proxy_header", swapped)
    with pytest.raises(AssertionError):
        for data in seeds()["proxy_protocol"]:
            invariants.check_proxy_header(data)
