"""The PROXY protocol, versions 1 and 2: who a connection's client is, told by the proxy in front.

Source: "The PROXY protocol, Versions 1 & 2", HAProxy Technologies. Read strictly: what does not match is refused, since
whoever can say something else here can say that it is anybody.
"""
from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from prefork_lb.errors import BadRequest, InvariantError

SocketAddress = tuple[str, int]

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_START = b"PROXY "
_V1_LONGEST = 107  # with its CRLF
_V2_HEAD = struct.Struct("!12sBBH")
_V2_LONGEST = 4096  # of what follows the head; addresses take 36 bytes, the rest is for TLVs
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESS_BYTES = {0x00: 0, _TCP4: 12, _TCP6: 36, 0x31: 216}
_TLV_CRC32C = 0x03

_V1 = re.compile(rb"PROXY (?:(UNKNOWN)(?: [\x20-\x7e]*)?|(TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) "
                 rb"(0|[1-9][0-9]{0,4}))\r\n")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A header. Addresses are None when the connection's own ones count: a health check, a family that is not TCP/IP."""

    source: SocketAddress | None
    destination: SocketAddress | None
    length: int  # bytes that the header takes


def parse(data: bytes) -> Parsed | None:
    """The header at the front of `data`; None when more bytes are needed. Raises BadRequest when there is none."""
    if data[:len(_SIGNATURE)] == _SIGNATURE[:len(data)]:
        return _parse_v2(data) if len(data) >= _V2_HEAD.size else None
    if data[:len(_V1_START)] == _V1_START[:len(data)]:
        return _parse_v1(data)
    raise BadRequest(f"no PROXY header at the begin of the connection: {data[:20]!r}")


def header(version: int, source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
    """The header for a connection with these addresses; None for one that has none, such as a unix socket's.

    Raises InvariantError for another version than 1 and 2.
    """
    if version not in (1, 2):
        raise InvariantError(f"the PROXY protocol has no version {version}")
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _V2_HEAD.pack(_SIGNATURE, _PROXY, 0, 0)
    ips = [ipaddress.ip_address(address.partition("%")[0]) for address, _ in (source, destination)]
    if ips[0].version != ips[1].version:  # the header has one family for both
        ips = [ipaddress.IPv6Address(f"::ffff:{ip}") if ip.version == 4 else ip for ip in ips]
    ports = source[1], destination[1]
    if version == 1:
        family = b"TCP4" if ips[0].version == 4 else b"TCP6"
        return b"PROXY %b %b %b %d %d\r\n" % (family, str(ips[0]).encode(), str(ips[1]).encode(), *ports)
    addresses = ips[0].packed + ips[1].packed + struct.pack("!HH", *ports)
    return _V2_HEAD.pack(_SIGNATURE, _PROXY, _TCP4 if ips[0].version == 4 else _TCP6, len(addresses)) + addresses


def _parse_v1(data: bytes) -> Parsed | None:
    end = data.find(b"\n", 0, _V1_LONGEST) + 1
    if not end:
        if len(data) >= _V1_LONGEST:
            raise BadRequest(f"the PROXY line is longer than {_V1_LONGEST} bytes")
        return None
    match = _V1.fullmatch(data, 0, end)
    if match is None:
        raise BadRequest(f"not a PROXY line: {data[:end]!r}")
    if match[1]:
        return Parsed(None, None, end)
    version = 4 if match[2] == b"TCP4" else 6
    source = _address(match[3].decode(), version), _port(match[5])
    return Parsed(source, (_address(match[4].decode(), version), _port(match[6])), end)


def _address(text: str, version: int) -> str:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError as exc:
        raise BadRequest(f"not an IP address in the PROXY line: {text!r}") from exc
    if ip.version != version:
        raise BadRequest(f"not an IPv{version} address in the PROXY line: {text!r}")
    return str(ip)


def _port(text: bytes) -> int:
    if int(text) > 65535:
        raise BadRequest(f"not a port in the PROXY line: {text!r}")
    return int(text)


def _parse_v2(data: bytes) -> Parsed | None:
    _, version_command, family, length = _V2_HEAD.unpack_from(data)
    if version_command not in (_LOCAL, _PROXY):
        raise BadRequest(f"not a version and command of the PROXY protocol: {version_command:#04x}")
    if length > _V2_LONGEST:
        raise BadRequest(f"a PROXY header of {length} bytes; at most {_V2_LONGEST} are allowed")
    if len(data) < _V2_HEAD.size + length:
        return None
    whole = data[:_V2_HEAD.size + length]
    block = whole[_V2_HEAD.size:]
    if version_command == _LOCAL:  # the proxy's own, such as a health check: what follows is to be skipped
        return Parsed(None, None, len(whole))
    if family not in _ADDRESS_BYTES:
        raise BadRequest(f"not a family of addresses over TCP in the PROXY header: {family:#04x}")
    size = _ADDRESS_BYTES[family]
    if length < size:
        raise BadRequest(f"a PROXY header whose addresses end after {length} of {size} bytes")
    _check_tlvs(whole, _V2_HEAD.size + size)
    if family not in (_TCP4, _TCP6):
        return Parsed(None, None, len(whole))
    half = 4 if family == _TCP4 else 16
    source_port, destination_port = struct.unpack_from("!HH", block, 2 * half)
    source, destination = (str(ipaddress.ip_address(block[start:start + half])) for start in (0, half))
    return Parsed((source, source_port), (destination, destination_port), len(whole))


def _check_tlvs(whole: bytes, position: int) -> None:
    while position < len(whole):
        if position + 3 > len(whole):
            raise BadRequest("a PROXY header that ends in the middle of a TLV")
        kind, length = struct.unpack_from("!BH", whole, position)
        start = position + 3
        position = start + length
        if position > len(whole):
            raise BadRequest(f"a TLV of the PROXY header is longer than the header: type {kind:#04x}, {length} bytes")
        if kind == _TLV_CRC32C:
            if length != 4:
                raise BadRequest(f"a checksum of {length} bytes in the PROXY header")
            (expected,) = struct.unpack_from("!I", whole, start)
            if _crc32c(whole[:start] + bytes(4) + whole[position:]) != expected:
                raise BadRequest("the checksum of the PROXY header is wrong")


def _crc32c(data: bytes) -> int:
    """CRC-32C (RFC 9260, Appendix A), bit by bit: a header is short, and few have one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
