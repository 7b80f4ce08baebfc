"""Where lines go. A sink never waits: a reader that takes nothing, or a full disk, must not hold up requests.

Facts: with O_APPEND one write(2) to a file is in one piece, whatever other workers write. To a pipe it is up to PIPE_BUF bytes. A
write that the disk has no room for ends in the middle, even of a line.
"""
from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from prefork_lb.net.address import parse_address

_JOURNAL = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
_PRIORITY = 16 * 8 + 6  # local0, informational
_STDOUT = 1


class Written(NamedTuple):
    """What came of lines."""

    lines: int  # so many of them went out, from the first one on
    error: OSError | None = None  # the rest cannot be written; None with lines left: the reader takes no more at the moment


class Sink(Protocol):
    """A place for lines."""

    def write(self, lines: Sequence[bytes]) -> Written: ...

    def reopen(self) -> None:
        """The file was moved away: go on in a new one."""

    def close(self) -> None: ...


def make_sink(name: str) -> Sink:
    """The sink of `log.access`: a file's path, "-", "syslog:", "syslog:/path", "syslog:HOST:PORT" or "journald:"."""
    kind, colon, rest = name.partition(":")
    if colon and kind == "journald":
        return DatagramSink(lambda: _connected(_JOURNAL), _journal_message)
    if colon and kind == "syslog":
        if rest and not rest.startswith("/"):
            address = parse_address(rest)
            return DatagramSink(lambda: _connected((address.host, address.port)), _network_message)
        return DatagramSink(lambda: _connected(rest or _SYSLOG), _local_message)
    return StreamSink(_open_stdout if name == "-" else lambda: _open(name))


def _open(path: str) -> int:
    # O_NONBLOCK is for a path that is a pipe.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)


def _open_stdout() -> int:
    mode = os.fstat(_STDOUT).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        # O_NONBLOCK belongs to what was opened, which other processes share. So it is opened once more.
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{_STDOUT}", os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    # A file keeps its one offset, so that what gunicorn writes there does not write over it. A socket is asked before each write.
    return os.dup(_STDOUT)


class StreamSink:
    """A file, a pipe, a terminal or a stream socket."""

    def __init__(self, open_it: Callable[[], int]) -> None:
        self._open = open_it
        self._descriptor = -1
        self._is_file = False
        self._socket: socket.socket | None = None  # what the descriptor is, if it is one
        self._rest = b""  # of a line that went out in part
        self._is_torn = False  # the file may end in the middle of a line

    def write(self, lines: Sequence[bytes]) -> Written:
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
                mode = os.fstat(self._descriptor).st_mode
                self._is_file = stat.S_ISREG(mode)
                self._socket = socket.socket(fileno=os.dup(self._descriptor)) if stat.S_ISSOCK(mode) else None
            return self._write_file(lines) if self._is_file else self._write_pipe(lines)
        except OSError as exc:
            self._is_torn = self._is_file
            if not self._is_file:
                self.reopen()
            return Written(0, exc)

    def _write_file(self, lines: Sequence[bytes]) -> Written:
        data = b"".join(lines)
        if self._is_torn:
            data = b"\n" + data
        size = os.write(self._descriptor, data)
        if size == len(data):
            self._is_torn = False
            return Written(len(lines))
        self._is_torn = True
        whole = data.count(b"\n", len(data) - sum(map(len, lines)), size)
        return Written(whole, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _write_pipe(self, lines: Sequence[bytes]) -> Written:
        if self._rest and not self._send_rest():
            return Written(0)
        done = 0
        while done < len(lines):
            until, size = done + 1, len(lines[done])
            while until < len(lines) and size + len(lines[until]) <= select.PIPE_BUF:
                size += len(lines[until])
                until += 1
            self._rest = b"".join(lines[done:until])
            before = self._rest
            if not self._send_rest():
                if len(self._rest) == len(before):
                    self._rest = b""
                    return Written(done)
                return Written(until)
            done = until
        return Written(done)

    def _send_rest(self) -> bool:
        """Whether all of it is out."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        if not poller.poll(0):
            return False
        try:
            if self._socket is not None:  # it waits, by the will of others who share it
                size = self._socket.send(self._rest, socket.MSG_DONTWAIT)
            else:
                size = os.write(self._descriptor, self._rest)
            self._rest = self._rest[size:]
        except BlockingIOError:
            return False
        return not self._rest

    def reopen(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._rest, self._is_torn = b"", False
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if descriptor >= 0:
            os.close(descriptor)

    close = reopen


class DatagramSink:
    """A socket that takes each line as a message."""

    def __init__(self, connect: Callable[[], socket.socket], message: Callable[[bytes], bytes]) -> None:
        self._connect = connect
        self._message = message
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[bytes]) -> Written:
        done = 0
        try:
            if self._socket is None:
                self._socket = self._connect()
            for line in lines:
                self._socket.send(self._message(line[:-1]))
                done += 1
        except BlockingIOError:
            pass
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                return Written(done + 1) if done + 1 == len(lines) else self._after(lines, done + 1)
            self.reopen()
            return Written(done, exc)
        return Written(done)

    def _after(self, lines: Sequence[bytes], done: int) -> Written:
        more = self.write(lines[done:])
        return Written(done + more.lines, more.error)

    def reopen(self) -> None:
        used, self._socket = self._socket, None
        if used is not None:
            used.close()

    close = reopen


def _connected(address: str | tuple[str, int]) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0][0]
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _local_message(line: bytes) -> bytes:
    # The daemon of this host adds the rest.
    return b"<%d>prefork-lb[%d]: %b" % (_PRIORITY, os.getpid(), line)


def _network_message(line: bytes) -> bytes:
    # RFC 5424 6.
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return b"<%d>1 %b %b prefork-lb %d - - %b" % (_PRIORITY, moment.encode(), socket.gethostname().encode(), os.getpid(), line)


def _journal_message(line: bytes) -> bytes:
    # systemd's native protocol (journald's JOURNAL_NATIVE_PROTOCOL); a line has no newline in it.
    return b"MESSAGE=%b\nPRIORITY=6\nSYSLOG_IDENTIFIER=prefork-lb\n" % line
