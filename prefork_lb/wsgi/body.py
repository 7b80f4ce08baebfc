"""The body of a client's request behind a WSGI environ, `wsgi.input`.

Facts of gunicorn's, and what they force on us:

- `wsgi.input.read(n)` waits until it has all of `n` bytes, and receives up to 1 MiB at a time. A proxy passes on what has come,
  and holds little. So under gunicorn we use the reader behind `wsgi.input`, and ask it for what one receive gives.
- gunicorn's decoder of chunked bodies checks a line only when the line is whole, and not by all rules. A client that sends
  twenty bytes of nonsense would hold a worker until the idle timeout. So we do not use this decoder: we take the bytes from the
  connection and decode them ourselves, by the rules for all traffic here. Bytes that follow the body are put back.
- Before gunicorn looks for the next request, it drops the rest of the body with its own decoder. Once our decoder has begun,
  gunicorn's would be out of step. So until ours has seen the end, gunicorn finds a decoder that fails, and closes the connection.
"""
from __future__ import annotations

import time
from typing import Any

from prefork_lb.errors import BadRequest, ClientGone, RequestTimeout
from prefork_lb.gunicorn.internals import ChunkedReader, NoMoreData, ParseException
from prefork_lb.net.stream import Stream
from prefork_lb.net.timeouts import Expired
from prefork_lb.proxy.patience import NO_LIMIT, Patience
from prefork_lb.wire.chunked import ChunkedDecoder
from prefork_lb.wire.head import Fields
from prefork_lb.wsgi.client import ClientRules, WSGIClient

_SILENT = "the client sent nothing of its body for too long"
_LEFT = "the client left in the middle of its body"
# Setting the socket's timeout is a system call. So it is set anew only when it gets shorter, or longer by this factor.
_MUCH_LONGER = 2.0


class _NoMore:
    """Stands in for gunicorn's decoder while ours is at work: it fails."""

    def __next__(self) -> bytes:
        raise NoMoreData


class WSGIBody:
    """`wsgi.input` as a body source."""

    def __init__(self, environ: dict[str, Any], client: WSGIClient, rules: ClientRules) -> None:
        self._input = environ["wsgi.input"]
        self._reader: Any = getattr(self._input, "reader", None)
        self._client = client
        self._rules = rules
        self._unreader: Any = getattr(self._reader, "unreader", None)
        self._decoder: ChunkedDecoder | None = None
        if isinstance(self._reader, ChunkedReader):
            self._unreader = getattr(self._reader.req, "unreader", None)
            if self._unreader is not None:
                self._decoder = ChunkedDecoder(BadRequest, rules.limits)
        self._patience = Patience(rules.body_timeout_s, rules.body_rate)
        self._ended = False
        self._timeout_s = 0.0  # the socket's receive timeout; 0: we have set none yet
        length = environ.get("CONTENT_LENGTH", "")
        # None: chunked, a decoder finds the end. The engine refuses a length that is no number before it reads.
        self._left = int(length) if length.isdecimal() else None

    def read(self, limit: int) -> bytes:
        if not self._timeout_s:
            self._begin(limit)
        try:
            if self._decoder is not None:
                return self._decode(self._decoder, limit)
            data = self._read_some(limit)
        except Expired as exc:
            self._patience.waited(self._timeout_s, 0)
            raise self._too_late() from exc
        except (NoMoreData, ConnectionError) as exc:
            raise ClientGone(_LEFT) from exc
        except ParseException as exc:
            raise BadRequest(f"malformed body: {exc}") from exc
        if self._left is not None:
            self._left -= len(data)
            if not self._left:
                self._end()
            elif not data:
                raise ClientGone(_LEFT)
        return data

    def wait(self, server: Stream, timeout_s: float) -> bool:
        if self._unreader is None or self._ended or self._surplus():
            return True
        began = time.monotonic()
        found = self._client.wait(server, min(timeout_s, self._patience.left_s))
        self._patience.waited(time.monotonic() - began, 0)
        if found is None:
            raise self._too_late()
        return found

    def trailers(self) -> Fields:
        """Those of a chunked body; WSGI's environ has no place for them."""
        if self._decoder is not None:
            return self._decoder.trailers
        message = getattr(self._reader, "req", None)
        found = getattr(message, "trailers", None) or []
        return [(name.title().encode("latin-1"), value.encode("latin-1")) for name, value in found]

    def _begin(self, limit: int) -> None:
        self._limit_wait()
        if hasattr(self._unreader, "max_body_chunk"):
            self._unreader.max_body_chunk = limit
        if self._decoder is not None:
            self._reader.parser = _NoMore()  # until all is decoded
            self._input.failed = True  # the same, for the gunicorns that look at it

    def _decode(self, decoder: ChunkedDecoder, limit: int) -> bytes:
        """The next data of a chunked body; empty at its end."""
        if self._ended:
            return b""
        while True:
            data = decoder.decode(self._receive(min(limit, decoder.receive_bytes)))
            if decoder.done:
                self._end_chunked(decoder.excess)
                return data
            if data:
                return data

    def _receive(self, limit: int) -> bytes:
        unreader = self._unreader
        began = time.monotonic()
        if unreader.buf.tell() or not hasattr(unreader, "max_body_chunk"):
            data: bytes = unreader.read()
        else:
            data = unreader.chunk(limit)
        self._waited(began, len(data))
        if not data:
            raise ClientGone(_LEFT)
        return data

    def _end_chunked(self, excess: bytes) -> None:
        if excess:
            self._unreader.unread(excess)
        self._reader.parser = None  # nothing is left to read
        self._input.failed = False
        self._end()

    def _end(self) -> None:
        """The whole body has come. Restore the usual timeout: a short one must not apply to the next head, or to a send."""
        self._ended = True
        usual_s = min(self._rules.idle_timeout_s, self._rules.body_timeout_s or NO_LIMIT)
        if self._timeout_s < usual_s:
            self._client.limit_receive(usual_s)

    def _read_some(self, limit: int) -> bytes:
        """What has come of a body that gunicorn reads for us; waits for the first byte."""
        began = time.monotonic()
        if self._reader is None:
            data: bytes = self._input.read(limit)
        else:
            data = self._reader.read(1)
            if data and (at_hand := min(self._surplus(), limit - 1)):
                data += self._reader.read(at_hand)
        self._waited(began, len(data))
        return data

    def _surplus(self) -> int:
        """Bytes that were received and not used."""
        # When gunicorn decodes a chunked body, its reader holds these bytes.
        buffer = self._reader.buf if self._unreader is None else self._unreader.buf
        return int(buffer.tell())

    def _waited(self, began: float, received: int) -> None:
        self._patience.waited(time.monotonic() - began, received)
        self._limit_wait()

    def _limit_wait(self) -> None:
        """Have the socket end the next read in time."""
        left_s = self._patience.left_s
        if left_s <= 0:
            raise self._too_late()
        seconds = min(self._rules.idle_timeout_s, left_s)
        if seconds < self._timeout_s or seconds > _MUCH_LONGER * self._timeout_s:
            self._client.limit_receive(seconds)
            self._timeout_s = seconds

    def _too_late(self) -> RequestTimeout:
        return RequestTimeout(_SILENT if self._patience.left_s > 0 else self._patience.too_slow())
