"""A lease: a claim on a server and the connection to it, given back exactly once."""
from __future__ import annotations

from types import TracebackType

from prefork_lb.errors import DownstreamError, Retry, UpstreamError
from prefork_lb.net.stream import Stream
from prefork_lb.shared.ledger import Ledger
from prefork_lb.upstream.server import Server


class Lease:
    """What an exchange holds of a server. Whoever has it gives it back: `succeed`, `fail` or `abandon`, the first counts.

    As a context manager it fails when it is left with none of them said, but for a client's error or a connection that
    had gone stale, which are not the server's fault. After `keep` the response that streams has taken it over.
    """

    __slots__ = ("_kept", "_ledger", "is_open", "server", "stream")

    def __init__(self, server: Server, ledger: Ledger) -> None:
        """Take over a claim that was made on `server`."""
        self.server = server
        self.stream: Stream | None = None
        self._ledger = ledger
        self.is_open = True
        self._kept = False

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if exc is None and self._kept:
            return
        stale = isinstance(exc, UpstreamError) and exc.retry is Retry.IF_REUSED
        if stale or isinstance(exc, DownstreamError):
            self.abandon()
        else:
            self.fail()

    def keep(self) -> None:
        """The response owns the lease from here on."""
        self._kept = True

    def succeed(self, reusable: bool) -> None:
        """The exchange is over and the server did its part; `reusable`: its connection can serve another one."""
        self._end(reusable, failed=False)

    def fail(self) -> None:
        """The server did not do its part."""
        self._end(reusable=False, failed=True)

    def abandon(self) -> None:
        """The client is gone: not the server's fault, but its connection is in the middle of something."""
        self._end(reusable=False, failed=False)

    def _end(self, reusable: bool, failed: bool) -> None:
        if not self.is_open:
            return
        self.is_open = False
        stream, self.stream = self.stream, None
        try:
            if stream is not None:
                if reusable:
                    self.server.idle.put(stream)
                else:
                    stream.close()
        finally:
            self._ledger.release(self.server.slot, failed)
