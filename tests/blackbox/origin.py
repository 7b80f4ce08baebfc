"""A scripted origin server: raw sockets, one thread a connection, exact bytes out, everything that came in recorded.

A request is known by its case's word, which stands in its target or a field. The proxy keeps one origin configured and
may reuse connections between cases, as it would in service.
"""
from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

import h11

from tests.support.place import HOST

from .case import (
    ANSWER,
    TOKEN,
    Action,
    AwaitRelease,
    Close,
    Data,
    Echo,
    Hold,
    IfReused,
    Pause,
    ReadBody,
    ReadSome,
    Reset,
    Script,
    Write,
)
from .wire import Ended, Malformed, Message, Source, read_body, read_request_head

WORD = re.compile(rb"Q[0-9a-z]{4}Q")  # as long as the mark it replaces: lengths stay right
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WAIT_S = 12.0
_LINGER = struct.pack("ii", 1, 0)


class _End(Exception):
    """The script ended the connection."""


@dataclass
class Record:
    """What the origin saw of one case. Guarded by the origin's condition."""

    word: bytes
    scripts: tuple[Script, ...]
    requests: list[Message] = field(default_factory=list)
    closed: int = 0
    released: bool = False


def expand(data: Data, word: bytes) -> bytes:
    """A case's bytes with its word put in; where they are many, it stands near their start."""
    raw = data if isinstance(data, bytes) else data()
    return raw.replace(TOKEN, word) if len(raw) < 1 << 18 else raw[:4096].replace(TOKEN, word) + raw[4096:]


def agree_with_h11(message: Message) -> list[str]:
    """A second opinion: what h11 as a server makes of a whole request's bytes."""
    if message.problems or not message.complete:
        return []
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(message.raw_head + message.raw_body)
    body = bytearray()
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return [] if body == message.body else ["h11 reads another body"]
            elif event in (h11.NEED_DATA, h11.PAUSED):
                return ["h11 sees no end of the request"]
    except h11.RemoteProtocolError as error:
        # h11 is stricter than RFC 3986 about bytes over 0x7f in a target; everything else stands.
        return [] if max(message.target, default=0) > 0x7e else [f"h11: {error}"]


class Origin:
    """Listens on a port of its own from construction until `stop`."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.changed = threading.Condition()
        self._records: dict[bytes, Record] = {}
        self._strays: list[Message] = []
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """End every connection, so that the next case starts on fresh ones."""
        with self.changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def expect(self, scripts: tuple[Script, ...]) -> Record:
        """A new word, and these scripts for the requests that carry it."""
        with self.changed:
            word = b"Q%04xQ" % (0xa000 + len(self._records))
            record = self._records[word] = Record(word, scripts)
        return record

    def take_strays(self) -> list[Message]:
        with self.changed:
            strays, self._strays = self._strays, []
        return strays

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self.changed:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        source, served = Source(connection), 0
        try:
            while True:
                connection.settimeout(120)
                self._one(connection, source, served)
                served += 1
        except (Ended, Malformed, OSError, _End):
            pass
        finally:
            with self.changed:
                self._open.discard(connection)
            connection.close()

    def _one(self, connection: socket.socket, source: Source, served: int) -> None:
        """One request by its case's script."""
        message = Message()
        try:
            length = read_request_head(source, message)
        except (Malformed, Ended) as error:
            message.raw_head = message.raw_head or (error.partial if isinstance(error, Ended) else source.take_all())
            message.problems.append(str(error))
            if message.raw_head:
                self._note(message)
            raise
        record, nth = self._note(message)
        script = ANSWER if record is None else record.scripts[min(nth, len(record.scripts) - 1)]
        connection.settimeout(_WAIT_S)
        run = _Run(self, connection, source, message, length, record, served)
        if message.framing != "chunked" and not length:
            run.read()  # there is no body: the request is whole
        for action in script:
            run.do(action)
        run.read()

    def _note(self, message: Message) -> tuple[Record | None, int]:
        with self.changed:
            known = [self._records[word] for word in WORD.findall(message.raw_head) if word in self._records]
            record = known[0] if known else None
            if record is None:
                self._strays.append(message)
                return None, 0
            record.requests.append(message)
            self.changed.notify_all()
            return record, len(record.requests) - 1


@dataclass
class _Run:
    """A script on its way over one connection."""

    origin: Origin
    connection: socket.socket
    source: Source
    message: Message
    length: int
    record: Record | None
    served: int

    def read(self) -> None:
        """The rest of the body; what is whole is held against h11 as well."""
        if self.message.complete:
            return
        try:
            read_body(self.source, self.message, self.length)
        except Malformed as error:
            self.message.problems.append(str(error))
            raise
        self.message.problems += agree_with_h11(self.message)
        with self.origin.changed:
            self.origin.changed.notify_all()

    def do(self, action: Action) -> None:
        if isinstance(action, ReadBody):
            # Of HTTP/1.0 no 100 may be sent; without a body there is none to wait for.
            asked = self.message.tokens("expect") == [b"100-continue"] and self.message.start[2:] == (b"HTTP/1.1",)
            if asked and action.says_continue and not self.message.complete:
                self.connection.sendall(CONTINUE)
            self.read()
        elif isinstance(action, ReadSome):
            self.source.wait_for(action.count)
        elif isinstance(action, Write):
            self._write(action)
        elif isinstance(action, Pause):
            time.sleep(action.seconds)
        elif isinstance(action, AwaitRelease):
            with self.origin.changed:
                self.origin.changed.wait_for(lambda: self.record is None or self.record.released, _WAIT_S)
        elif isinstance(action, Close):
            raise _End
        elif isinstance(action, Reset):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            raise _End
        elif isinstance(action, Hold):
            self._hold()
        elif isinstance(action, Echo):
            while True:
                self.connection.sendall(self.source.up_to(65536))
        elif isinstance(action, IfReused) and self.served:
            for inner in action.actions:
                self.do(inner)

    def _write(self, action: Write) -> None:
        data = expand(action.data, self.record.word if self.record else b"")
        size = action.piece or max(1, len(data))
        try:
            for at in range(0, len(data), size):
                self.connection.sendall(data[at: at + size])
                if action.pause_s:
                    time.sleep(action.pause_s)
        except ConnectionError:
            self._note_closed()
            raise

    def _hold(self) -> None:
        try:
            while True:
                self.source.up_to(65536)
        except Ended:
            self._note_closed()
            raise

    def _note_closed(self) -> None:
        with self.origin.changed:
            if self.record is not None:
                self.record.closed += 1
            self.origin.changed.notify_all()
