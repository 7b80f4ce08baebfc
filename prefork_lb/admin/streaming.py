"""The stream of events for pages (server-sent events, HTML 9.2): the document first, then what changes, once a second."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from werkzeug.wrappers import Response

from prefork_lb.admin.answers import Problem
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.requests import AdminRequest
from prefork_lb.admin.routes import Route

MOST_STREAMS = 24
"""Each takes a thread of the server; the others are for requests."""
_HEARTBEAT_S = 15.0
_AGAIN_MS = 2000  # a page whose stream ended connects again after so long


class Streaming:
    """The open streams."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._room = threading.Semaphore(MOST_STREAMS)

    def routes(self) -> Sequence[Route]:
        return [Route("GET", "/api/v1/stream", self.stream)]

    def stream(self, request: AdminRequest) -> Response:
        """One page's stream. It ends when the page is closed: the next write finds that out."""
        if request.method == "HEAD":
            return Response(content_type="text/event-stream")
        if not self._room.acquire(blocking=False):
            raise Problem(503, f"{MOST_STREAMS} pages are open already; close one", headers={"Retry-After": "10"})
        response = Response(self._messages(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        response.call_on_close(self._room.release)
        return response

    def _messages(self) -> Iterator[bytes]:
        frame = self._publisher.newest
        yield b"retry: %d\n" % _AGAIN_MS + _message("snapshot", frame.encoded())
        while True:
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

