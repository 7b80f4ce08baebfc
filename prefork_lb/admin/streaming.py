"""The stream of events for pages (server-sent events, HTML 9.2): the document first, then what changes, once a second."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from werkzeug.wrappers import Response

from prefork_lb.admin.answers import Problem
from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.events import Events
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.requests import AdminRequest

MOST_STREAMS = 24
"""Each takes a thread of the server; the others are for requests."""
_HEARTBEAT_S = 15.0
_AGAIN_MS = 2000  # a page whose stream ended connects again after so long


class Streaming:
    """The open streams."""

    def __init__(self, publisher: Publisher, events: Events) -> None:
        self._publisher, self._events = publisher, events
        self._room = threading.Semaphore(MOST_STREAMS)

    def endpoints(self) -> Sequence[Endpoint]:
        return [Endpoint("GET", "/api/v1/stream", self.stream)]

    def stream(self, request: AdminRequest) -> Response:
        """One page's stream. It ends when the page is closed: the next write finds that out."""
        if request.method == "HEAD":
            return Response(content_type="text/event-stream")
        if not self._room.acquire(blocking=False):
            raise Problem(503, f"{MOST_STREAMS} pages are open already; close one", headers={"Retry-After": "10"})
        known = request.headers.get("Last-Event-ID", "")
        seen = int(known) if known.isascii() and known.isdigit() and len(known) <= 18 else self._events.last
        response = Response(self._messages(seen), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        response.call_on_close(self._room.release)
        return response

    def _messages(self, seen: int) -> Iterator[bytes]:
        """`seen` is the number of the last event that the page knows."""
        frame = self._publisher.newest
        yield b"retry: %d\nid: %d\n" % (_AGAIN_MS, seen) + _message("snapshot", frame.encoded())
        yield _message("history", self._publisher.history())
        while True:
            for number, event in self._events.messages(seen):
                seen = number
                yield b"id: %d\n" % number + _message("event", event)
            newer = self._publisher.wait(frame.number, _HEARTBEAT_S)
            if newer is None:
                yield b": nothing new\n\n"
            elif newer.change is not None and newer.number == frame.number + 1:
                frame = newer
                yield _message("delta", newer.change)
            else:
                frame = newer
                yield _message("snapshot", newer.encoded())


def _message(event: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)

