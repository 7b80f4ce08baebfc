"""Bytes that are nearly right: the wire corpus, cut, joined and disturbed by what is known to split readers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.wire.corpus import KINDS, cases

# What differs between readers: line ends, blanks, the words of framing, numbers at the edges.
DISTURBING = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\r\n",
    b"\n\n",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b": ",
    b" :",
    b",",
    b";",
    b"=",
    b'"',
    b"\\",
    b"#",
    b"%",
    b"[",
    b"]",
    b"@",
    b"/",
    b"//",
    b"*",
    b"?",
    b"0",
    b"-1",
    b"+1",
    b"0x",
    b"1e1",
    b"_",
    b"ffffffffffffffff",
    b"99999999999999999999",
    b"65536",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"http://b.test",
    b"GET / HTTP/1.1\r\n",
    b"CONNECT",
    b"OPTIONS",
    b"Host: a.test\r\n",
    b"Host: b.test\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x\r\n",
    b"chunked",
    b"identity",
    b"Connection: close, host, x-a\r\n",
    b"X-A: 1\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\n",
    b"Forwarded: for=10.0.0.1\r\n",
    b"Cookie: a=1; b=2\r\n",
    b"Cookie: b = 2;a;=;a=\r\n",
    b"; a=",
    b"&a=",
    b"?a=",
    b"X-Forwarded-For: 192.0.2.9, [2001:db8::1]:80,10.0.0.1:1\r\n",
    b"Via: 1.1 lb\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b";a=b",
    b" folded\r\n",
    b"PROXY ",
    b"PROXY UNKNOWN\r\n",
    b"TCP4 ",
    b"TCP6 ",
    b" 192.0.2.1",
    b" 255.255.255.255",
    b" 2001:db8::1",
    b" ::ffff:192.0.2.1",
    b" 65535",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x20\x00",
    b"\x21\x11",
    b"\x21\x21",
    b"\x21\x31",
    b"\x03\x00\x04",
    b"\x04\x00\x00",
)


def seeds() -> dict[str, Sequence[bytes]]:
    """The corpus by kind; sorted, so that a seed means the same on every machine. Valid cases come three times: a step or two
    makes most of them invalid."""
    return {
        kind: [
            case.data
            for verdict in ("invalid", *["valid"] * 3)
            for case in cases(verdict, kind)
            if len(case.data) < 1000
        ]
        for kind in (*KINDS, "proxy_protocol")
    }


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`data` after a few steps."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        data = _step(data, others, rng)
    return data


def _step(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 16)))
    match rng.randrange(7):
        case 0:
            return data[:start] + data[end:]
        case 1:
            return data[:start] + rng.choice(DISTURBING) + data[end:]
        case 2:
            return data[:start] + rng.choice(DISTURBING) + data[start:]
        case 3:
            return data[:start] + data[start:end] * rng.choice((2, 3, 50)) + data[end:]
        case 4:
            other = rng.choice(others)
            return data[:start] + other[rng.randrange(len(other) + 1) :]
        case 5:
            return data[:start] + rng.randbytes(1) + data[end:]
        case _:  # a line somewhere else: most heads survive that
            lines = data.split(b"\r\n")
            lines.insert(rng.randrange(len(lines) + 1), lines.pop(rng.randrange(len(lines))))
            return b"\r\n".join(lines)
