"""The PROXY protocol, versions 1 and 2: the proxy in front sends the address of a connection's client.

Source: "The PROXY protocol, Versions 1 & 2", HAProxy Technologies, 2020/03/05; section numbers are those of that text.
The header is read strictly and refused at the first byte that cannot belong to one: a client that could write a header could
claim any address.
"""
from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, AddressFamily, inet_ntop, inet_pton

from prefork_lb.errors import BadRequest, InvariantError

SocketAddress = tuple[str, int]
"""IP address and port."""

_V1_START = b"PROXY "
_V1_LONGEST = 107  # bytes, with the CRLF: the worst case of section 2.1
_V1_FAMILIES = {b"TCP4": AF_INET, b"TCP6": AF_INET6, b"UNKNOWN": None}
_not_text = re.compile(rb"[^\x20-\x7e]")
_port_number = re.compile(rb"0|[1-9][0-9]{0,4}")

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
_V2_LONGEST = 4096  # bytes behind the head: at most 216 are addresses, the rest is for TLVs
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_DATAGRAMS = (0x12, 0x22, 0x32)
_TLV_HEAD = struct.Struct("!BH")
_TLV_CRC32C = 0x03

_V4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2


@dataclass(frozen=True, slots=True)
class Parsed:
    """A header. The addresses are None when the connection's own addresses apply: for a connection that the proxy made for
    itself (a health check), and for a client without an IP address.

    Addresses are written as the system writes a peer's address: `::1`, `::ffff:192.0.2.1`.
    """

    source: SocketAddress | None
    destination: SocketAddress | None
    length: int  # bytes that the header takes


def parse_proxy_header(data: bytes) -> Parsed | None:
    """The header at the front of `data`, in either version; None when more bytes are needed. 107 bytes (version 1) or 4112 bytes
    (version 2) are always enough.

    Raises BadRequest when `data` does not begin with a header for a TCP connection.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _parse_v2(data)
    if data.startswith(_V1_START[: len(data)]):
        return _parse_v1(data)
    raise BadRequest(f"no PROXY header: the connection begins with {data[:20]!r}; does the proxy in front send the header?")


def proxy_header(version: int, source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
    """The header for a connection with these addresses. None stands for an address that is not TCP/IP, such as a unix
    socket's; the header then names none. When only one is IPv4, both are written as IPv6 (RFC 4291 2.5.5.2).

    Raises InvariantError for a version other than 1 and 2, and for what is not an IP address and a port.
    """
    if version not in (1, 2):
        raise InvariantError(f"the PROXY protocol has no version {version}, only 1 and 2")
    if source is None or destination is None:
        # LOCAL in version 2: HAProxy resets a connection whose command is PROXY and whose family is UNSPEC.
        return b"PROXY UNKNOWN\r\n" if version == 1 else _V2_HEAD.pack(_SIGNATURE, _LOCAL, _UNSPEC, 0)
    packed = [_packed(source), _packed(destination)]
    if len(packed[0]) != len(packed[1]):  # a header has one family for both
        packed = [_V4_MAPPED + ip if len(ip) == 4 else ip for ip in packed]
    is_v4 = len(packed[0]) == 4
    if version == 1:
        ips = b" ".join(map(_v1_text, packed))
        return b"PROXY %b %b %d %d\r\n" % (b"TCP4" if is_v4 else b"TCP6", ips, source[1], destination[1])
    block = b"".join(packed) + struct.pack("!HH", source[1], destination[1])
    return _V2_HEAD.pack(_SIGNATURE, _PROXY, _TCP4 if is_v4 else _TCP6, len(block)) + block


def _parse_v1(data: bytes) -> Parsed | None:
    line, line_feed, _ = data[:_V1_LONGEST].partition(b"\n")
    text = line.removesuffix(b"\r")
    if found := _not_text.search(text):
        raise BadRequest(f"the PROXY line has the byte {found[0][0]:#04x}, only US-ASCII text and CRLF may be there: {line!r}")
    name, space, _ = text[len(_V1_START):].partition(b" ")
    ends = bool(space) or text != line  # the name is not cut short by the end of what has come
    if name not in _V1_FAMILIES and (ends or not any(known.startswith(name) for known in _V1_FAMILIES)):
        raise BadRequest(f"the PROXY line must go on with one space and TCP4, TCP6 or UNKNOWN: {line!r}")
    if not line_feed:
        if len(data) >= _V1_LONGEST:
            raise BadRequest(f"the PROXY line does not end within {_V1_LONGEST} bytes: {line!r}")
        return None
    if text == line:
        raise BadRequest(f"the PROXY line ends with LF alone, CRLF is needed: {line!r}")
    length = len(line) + 1
    family = _V1_FAMILIES[name]
    if family is None:
        return Parsed(None, None, length)  # 2.1: whatever else the line says is to be ignored
    words = text.split(b" ")[2:]
    if b"" in words:
        raise BadRequest(f"the PROXY line has a space too many: {line!r}")
    if len(words) != 4:
        raise BadRequest(f"the PROXY line has {len(words)} words after its family, not two addresses and two ports: {line!r}")
    source, destination = (_v1_address(word, family, name, line) for word in words[:2])
    source_port, destination_port = (_v1_port(word, line) for word in words[2:])
    return Parsed((source, source_port), (destination, destination_port), length)


def _v1_address(word: bytes, family: AddressFamily, name: bytes, line: bytes) -> str:
    # inet_pton knows neither octal nor shortened IPv4, no zone and no name. An IPv6 address that ends like an IPv4 one is
    # more than 2.1 describes, but what HAProxy sends for a v4-mapped one.
    try:
        return inet_ntop(family, inet_pton(family, word.decode("ascii")))
    except OSError as exc:
        raise BadRequest(f"the PROXY line has {word!r} where an address for {name.decode()} must stand: {line!r}") from exc


def _v1_port(word: bytes, line: bytes) -> int:
    if not _port_number.fullmatch(word) or int(word) > 65535:
        raise BadRequest(f"the PROXY line has {word!r} where a port must stand (0 to 65535, no leading zeros): {line!r}")
    return int(word)


def _v1_text(packed: bytes) -> bytes:
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed).encode()
    text = inet_ntop(AF_INET6, packed)
    # 2.1 knows groups of hexadecimal digits only; the system writes a v4-mapped address with dots.
    return (":".join(f"{group:x}" for group in struct.unpack("!8H", packed)) if "." in text else text).encode()


def _packed(address: SocketAddress) -> bytes:
    text, _, _ = address[0].partition("%")  # a zone means something on this host only
    try:
        packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError) as exc:
        raise InvariantError(f"not an IP address for a PROXY header: {address!r}") from exc
    if not 0 <= address[1] <= 65535:
        raise InvariantError(f"not a port for a PROXY header: {address!r}")
    return packed


def _parse_v2(data: bytes) -> Parsed | None:
    _check_v2_kind(data)
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    if length > _V2_LONGEST:
        raise BadRequest(f"the PROXY header has {length} bytes behind its head, more than {_V2_LONGEST}")
    addresses = 0 if command == _LOCAL else _ADDRESS_BYTES[family]
    if length < addresses:
        raise BadRequest(f"the PROXY header has {length} bytes for addresses of {addresses}")
    whole = data[: _V2_HEAD.size + length]
    if len(whole) < _V2_HEAD.size + length:
        return None
    if command == _LOCAL:  # 2.2: family and block are to be skipped, whatever they are
        return Parsed(None, None, len(whole))
    # 2.2 says of no family how long an address would be: all that follows UNSPEC is taken for TLVs.
    _check_tlvs(whole, _V2_HEAD.size + addresses)
    if family not in (_TCP4, _TCP6):
        return Parsed(None, None, len(whole))
    system_family, layout = (AF_INET, "!4s4sHH") if family == _TCP4 else (AF_INET6, "!16s16sHH")
    source, destination, source_port, destination_port = struct.unpack_from(layout, whole, _V2_HEAD.size)
    return Parsed(
        (inet_ntop(system_family, source), source_port), (inet_ntop(system_family, destination), destination_port), len(whole)
    )


def _check_v2_kind(data: bytes) -> None:
    """Refuse a version, command or family that is none, or not for us, as soon as its byte is there."""
    kind = data[len(_SIGNATURE) : _V2_HEAD.size]
    if kind and kind[0] >> 4 != 2:
        raise BadRequest(f"the PROXY header has version {kind[0] >> 4}; only 2 begins like this")
    if kind and kind[0] not in (_LOCAL, _PROXY):
        raise BadRequest(f"the PROXY header has the command {kind[0] & 15}; only 0 (LOCAL) and 1 (PROXY) are known")
    if len(kind) < 2 or kind[0] == _LOCAL or kind[1] in _ADDRESS_BYTES:
        return
    if kind[1] in _DATAGRAMS:
        raise BadRequest(f"the PROXY header is for datagrams (family and protocol {kind[1]:#04x}), and this is a stream")
    raise BadRequest(f"the PROXY header has the unknown family and protocol {kind[1]:#04x}")


def _check_tlvs(whole: bytes, position: int) -> None:
    has_checksum = False
    while position < len(whole):
        if position + _TLV_HEAD.size > len(whole):
            raise BadRequest("the PROXY header ends in the middle of a TLV's type and length")
        kind, length = _TLV_HEAD.unpack_from(whole, position)
        start = position + _TLV_HEAD.size
        position = start + length
        if position > len(whole):
            raise BadRequest(f"a TLV of type {kind:#04x} and {length} bytes is longer than what is left of the PROXY header")
        if kind == _TLV_CRC32C:
            if has_checksum:  # each would be computed over the other, and many would take long
                raise BadRequest("the PROXY header has two checksums")
            has_checksum = True
            _check_checksum(whole, start, length)


def _check_checksum(whole: bytes, start: int, length: int) -> None:
    """2.2.3: over the whole header, with zeros where the checksum stands."""
    if length != 4:
        raise BadRequest(f"the PROXY header has a checksum of {length} bytes; CRC-32C has 4")
    if _crc32c(whole[:start] + bytes(4) + whole[start + 4 :]) != int.from_bytes(whole[start : start + 4], "big"):
        raise BadRequest("the PROXY header does not match its checksum (CRC-32C)")


def _crc32c_entry(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC32C = tuple(map(_crc32c_entry, range(256)))


def _crc32c(data: bytes) -> int:
    """RFC 9260, Appendix A. The standard library has only the other polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
