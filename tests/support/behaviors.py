"""What the origin does for a request: chosen by its path, with options from its query.

| path | what happens | options |
| --- | --- | --- |
| `/`, `/bytes` | a body of `n` bytes of the pattern | `n`, `framing` (length, chunked, close), `piece` |
| `/hold` | the same, after the test released it | as above |
| `/sleep` | the same, after `seconds` | `seconds` and as above |
| `/drip` | `n` pieces of `size` bytes, `gap` seconds apart | `n`, `size`, `gap`, `framing` |
| `/steps` | the same, each piece but the first after the test released it | `n`, `size`, `framing` |
| `/broken` | declares `n` bytes, sends `sent`, then ends with `how` (eof, reset) | `n`, `sent`, `how`, `framing` |
| `/stall-body` | declares `n` bytes, sends `sent`, then waits to be released | `n`, `sent`, `framing` |
| `/late-body` | a head, and `n` bytes of body after the test released it | `n`, `framing` |
| `/cut-head` | half a response head, then the end | `how` (eof, reset) |
| `/no-answer` | closes without a byte | `how` |
| `/hints` | 103 with a Link field, then the answer | `hints` (how many) |
| `/trailers` | a chunked body with trailer fields | |
| `/status` | an answer without a body (204, 304) or an empty one | `code` |
| `/upload` | reads the body; answers JSON: bytes, whether they fit the pattern, trailers | `held` (1: wait first) |
| `/echo` | the request's head as JSON | |
| `/stale` | answers; the next request on this connection is read and answered by closing | |
| `/close-after` | answers as if the connection were kept, then closes it | |
| any other | 404 after the whole body, as most servers answer | |

A HEAD request gets the head only. Every answer carries `X-Served-By`.
"""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from tests.support.origin import Behavior, Link, PeerGone, Request
from tests.support.pattern import fits_pattern, pattern

PIECE_BYTES = 64 * 1024


async def behave(link: Link, request: Request) -> bool:
    """Answer `request`; return whether the connection is kept."""
    behavior = BEHAVIORS.get(request.path)
    if behavior is None:
        async for _ in body_pieces(link, request, {}):
            pass
        body = f"the origin knows no {request.path}\n".encode()
        await link.send(head(link, 404, [("Content-Length", str(len(body)))]) + body)
        return True
    return await behavior(link, request) and await rest_read(link, request)


async def rest_read(link: Link, request: Request) -> bool:
    """Read what an early answer has left of the body, before the next head; return whether all of it came."""
    if link.body_read:
        return True
    link.uncount()
    try:
        async for _ in body_pieces(link, request, {}):
            pass
    except PeerGone:
        return False
    return True


def head(link: Link, status: int, fields: list[tuple[str, str]]) -> bytes:
    """A response head with the server's name in it."""
    lines = [f"HTTP/1.1 {status} {'Early Hints' if status == 103 else 'Scripted'}"]
    if status >= 200:
        lines.append(f"X-Served-By: {link.server.name}")
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def framing_fields(framing: str, length: int) -> list[tuple[str, str]]:
    if framing == "length":
        return [("Content-Length", str(length))]
    if framing == "chunked":
        return [("Transfer-Encoding", "chunked")]
    if framing == "close":
        return [("Connection", "close")]
    raise ValueError(f"framing {framing!r} is none of length, chunked, close")


async def send_piece(link: Link, framing: str, piece: memoryview) -> None:
    if framing == "chunked":
        await link.send(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
    else:
        await link.send(piece)


async def answer(link: Link, request: Request) -> bool:
    length, framing = request.count("n", 2), request.options.get("framing", "length")
    opening = head(link, 200, framing_fields(framing, length))
    if request.arrival.method == "HEAD":
        await link.send_last(opening)
        return True
    size = request.count("piece", PIECE_BYTES)
    if framing == "length" and length <= size:
        await link.send_last(opening + pattern(0, length))  # one packet, as a fast server sends it
        return True
    await link.send(opening)
    for offset in range(0, length, size):
        await send_piece(link, framing, pattern(offset, min(size, length - offset)))
    if framing == "chunked":
        await link.send_last(b"0\r\n\r\n")
    return framing != "close"


async def hold(link: Link, request: Request) -> bool:
    await link.server.origin.held(link)
    return await answer(link, request)


async def sleep(link: Link, request: Request) -> bool:
    await asyncio.sleep(request.number("seconds", 0.03))
    return await answer(link, request)


async def drip(link: Link, request: Request) -> bool:
    pieces, size = request.count("n", 5), request.count("size", 10)
    framing, gap = request.options.get("framing", "length"), request.number("gap", 0.05)
    await link.send(head(link, 200, framing_fields(framing, pieces * size)))
    for number in range(pieces):
        await link.unless_gone(asyncio.sleep(gap))
        await send_piece(link, framing, pattern(number * size, size))
    if framing == "chunked":
        await link.send_last(b"0\r\n\r\n")
    return framing != "close"


async def steps(link: Link, request: Request) -> bool:
    pieces, size = request.count("n", 5), request.count("size", 10)
    framing = request.options.get("framing", "length")
    await link.send(head(link, 200, framing_fields(framing, pieces * size)))
    for number in range(pieces):
        if number:
            await link.server.origin.held(link)
        await send_piece(link, framing, pattern(number * size, size))
    if framing == "chunked":
        await link.send_last(b"0\r\n\r\n")
    return framing != "close"


def end(link: Link, request: Request) -> bool:
    """End the connection in the way the request asked for."""
    if request.options.get("how", "eof") == "reset":
        link.reset()
    return False


async def start_body(link: Link, request: Request) -> None:
    """Send a head that declares `n` bytes, and the first `sent` of them."""
    framing, sent = request.options.get("framing", "length"), request.count("sent", 100)
    await link.send(head(link, 200, framing_fields(framing, request.count("n", 1000))))
    for offset in range(0, sent, PIECE_BYTES):
        await send_piece(link, framing, pattern(offset, min(PIECE_BYTES, sent - offset)))


async def broken(link: Link, request: Request) -> bool:
    await start_body(link, request)
    # A reset overtakes data that is still on its way: give the proxy the time to read what was sent.
    await asyncio.sleep(0.05)
    return end(link, request)


async def stall_body(link: Link, request: Request) -> bool:
    await start_body(link, request)
    await link.server.origin.held(link)
    return False


async def late_body(link: Link, request: Request) -> bool:
    length, framing = request.count("n", 10), request.options.get("framing", "length")
    await link.send(head(link, 200, framing_fields(framing, length)))
    await link.server.origin.held(link)
    await send_piece(link, framing, pattern(0, length))
    if framing == "chunked":
        await link.send_last(b"0\r\n\r\n")
    return framing != "close"


async def cut_head(link: Link, request: Request) -> bool:
    await link.send(b"HTTP/1.1 200 Scripted\r\nContent-Le")
    return end(link, request)


async def no_answer(link: Link, request: Request) -> bool:
    return end(link, request)


async def hints(link: Link, request: Request) -> bool:
    for number in range(request.count("hints", 1)):
        await link.send(head(link, 103, [("Link", f"</style-{number}.css>; rel=preload")]))
    return await answer(link, request)


async def trailers(link: Link, request: Request) -> bool:
    opening = head(link, 200, [("Transfer-Encoding", "chunked"), ("Trailer", "X-Checksum")])
    await link.send(opening + b"5\r\nhello\r\n0\r\nX-Checksum: 5d41\r\n\r\n")
    return True


async def status(link: Link, request: Request) -> bool:
    code = request.count("code", 204)
    fields = [("ETag", '"v1"')]
    if code not in (204, 304):
        fields.append(("Content-Length", "0"))
    await link.send(head(link, code, fields))
    return True


async def body_pieces(link: Link, request: Request, trailers: dict[str, str]) -> AsyncIterator[bytes]:
    """The pieces of the request's body, at the reader's pace; trailer fields are put into `trailers`."""
    if "chunked" in ",".join(request.arrival.values("Transfer-Encoding")).lower():
        while size := int((await link.line()).split(b";")[0], 16):
            async for piece in counted(link, size):
                yield piece
            await link.line()
        while (line := await link.line()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            trailers[name] = value.strip()
    else:
        lengths = request.arrival.values("Content-Length")
        async for piece in counted(link, int(lengths[0]) if lengths else 0):
            yield piece
    link.body_read = True


async def counted(link: Link, length: int) -> AsyncIterator[bytes]:
    left = length
    while left:
        piece = await link.reader.read(left)
        if not piece:
            raise PeerGone
        left -= len(piece)
        link.received += len(piece)
        yield piece


async def upload(link: Link, request: Request) -> bool:
    if "100-continue" in ",".join(request.arrival.values("Expect")).lower():
        await link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.count("held", 0):
        # Not `held`: with a body waiting to be read, the end of the connection is not seen anyway.
        await link.server.origin.gate_opened(link.server.index)
    received, fits = 0, True
    fields: dict[str, str] = {}
    async for piece in body_pieces(link, request, fields):
        fits = fits and fits_pattern(received, piece)
        received += len(piece)
    body = json.dumps({"received": received, "fits": fits, "trailers": fields}).encode()
    await link.send(head(link, 200, [("Content-Length", str(len(body)))]) + body)
    return True


async def echo(link: Link, request: Request) -> bool:
    arrival = request.arrival
    told = {"method": arrival.method, "target": arrival.target, "version": arrival.version, "fields": arrival.fields}
    body = json.dumps(told).encode()
    await link.send(head(link, 200, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]) + body)
    return True


async def stale(link: Link, request: Request) -> bool:
    link.close_at_next = True
    return await answer(link, request)


async def close_after(link: Link, request: Request) -> bool:
    await answer(link, request)
    return False


BEHAVIORS: dict[str, Behavior] = {
    "/": answer,
    "/bytes": answer,
    "/hold": hold,
    "/sleep": sleep,
    "/drip": drip,
    "/steps": steps,
    "/broken": broken,
    "/stall-body": stall_body,
    "/late-body": late_body,
    "/cut-head": cut_head,
    "/no-answer": no_answer,
    "/hints": hints,
    "/trailers": trailers,
    "/status": status,
    "/upload": upload,
    "/echo": echo,
    "/stale": stale,
    "/close-after": close_after,
}
