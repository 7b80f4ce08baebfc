"""What the origin does for a request beside `behaviors.py`: what only ProxyWorker passes on, or must stand.

| path | what happens | options |
| --- | --- | --- |
| `/events` | server-sent events; `held` (1): each but the first after the test released it | `n`, `gap`, `held`, `framing` |
| `/mute-upload` | reads the body without ever saying 100; answers its length | |
| `/eager-upload` | 100, 103 and 100 again, then the same | |
| `/refuse-upload` | answers 413 without reading the body, and closes | |
| `/lazy-upload` | reads the body in pieces with a pause; answers its length | `gap` |
| `/switch` | 101, whatever was asked | |
| `/tunnel` | 101, echoes; after the client's end sends `after` bytes of the pattern and ends its side | `after` |
| `/pour` | 101, sends `n` bytes of the pattern, then ends | `n` |
| `/reset-tunnel` | 101, a few bytes, then a reset once the test released it | |
| `/silent-tunnel` | 101, then nothing until the test released it, whatever the peer does | |
| `/no-upgrade` | 426 with a body, on a connection that is kept | |
"""
from __future__ import annotations

import asyncio

from tests.support.behaviors import behave, body_pieces, head
from tests.support.origin import Behavior, Link, Request
from tests.support.pattern import pattern

_PIECE_BYTES = 256 * 1024
_SWITCHED = [("Connection", "Upgrade"), ("Upgrade", "raw")]


async def behave_oddly(link: Link, request: Request) -> bool:
    """Answer `request`; what this module does not know, `behave` may."""
    return await BEHAVIORS.get(request.path, behave)(link, request)


async def events(link: Link, request: Request) -> bool:
    framing = request.options.get("framing", "chunked")
    field = ("Transfer-Encoding", "chunked") if framing == "chunked" else ("Connection", "close")
    await link.send(head(link, 200, [("Content-Type", "text/event-stream"), field]))
    for number in range(request.count("n", 10)):
        if not request.count("held", 0):
            await link.unless_gone(asyncio.sleep(request.number("gap", 0.1)))
        elif number:
            await link.server.origin.held(link)
        event = b"data: %d\n\n" % number
        await link.send(b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event)
    if framing == "chunked":
        await link.send(b"0\r\n\r\n")
    return framing == "chunked"


async def count_body(link: Link, request: Request, gap: float = 0.0) -> bool:
    received, rest = 0, 0
    async for piece in body_pieces(link, request, {}):
        received += len(piece)
        rest += len(piece)
        if gap and rest > 16 * _PIECE_BYTES:
            rest = 0
            await asyncio.sleep(gap)
    told = str(received).encode()
    await link.send(head(link, 200, [("Content-Length", str(len(told)))]) + told)
    return True


async def mute_upload(link: Link, request: Request) -> bool:
    return await count_body(link, request)


async def eager_upload(link: Link, request: Request) -> bool:
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    await link.send(go_on + head(link, 103, [("Link", "</a>; rel=preload")]) + go_on)
    return await count_body(link, request)


async def refuse_upload(link: Link, request: Request) -> bool:
    await link.send(head(link, 413, [("Content-Length", "3"), ("Connection", "close")]) + b"no\n")
    return False


async def lazy_upload(link: Link, request: Request) -> bool:
    return await count_body(link, request, request.number("gap", 0.05))


async def switch(link: Link, request: Request) -> bool:
    await link.send(head(link, 101, _SWITCHED) + b"what nobody asked for")
    return False


async def tunnel(link: Link, request: Request) -> bool:
    await link.send(head(link, 101, _SWITCHED))
    while data := await link.reader.read(_PIECE_BYTES):
        await link.send(data)
    await send_pattern(link, request.count("after", 0))
    return False


async def send_pattern(link: Link, length: int) -> None:
    for offset in range(0, length, _PIECE_BYTES):
        await link.send(pattern(offset, min(_PIECE_BYTES, length - offset)))


async def pour(link: Link, request: Request) -> bool:
    await link.send(head(link, 101, _SWITCHED))
    await send_pattern(link, request.count("n", 1000))
    return False


async def reset_tunnel(link: Link, request: Request) -> bool:
    await link.send(head(link, 101, _SWITCHED) + b"some")
    await link.server.origin.held(link)
    link.reset()
    return False


async def silent_tunnel(link: Link, request: Request) -> bool:
    await link.send(head(link, 101, _SWITCHED))
    await link.server.origin.gate_opened(link.server.index)
    return False


async def no_upgrade(link: Link, request: Request) -> bool:
    await link.send(head(link, 426, [("Upgrade", "other"), ("Connection", "Upgrade"), ("Content-Length", "3")]) + b"no\n")
    return True


BEHAVIORS: dict[str, Behavior] = {
    "/events": events,
    "/mute-upload": mute_upload,
    "/eager-upload": eager_upload,
    "/refuse-upload": refuse_upload,
    "/lazy-upload": lazy_upload,
    "/switch": switch,
    "/tunnel": tunnel,
    "/pour": pour,
    "/reset-tunnel": reset_tunnel,
    "/silent-tunnel": silent_tunnel,
    "/no-upgrade": no_upgrade,
}
