"""From the record of an exchange to its line.

The line in JSON is on the way of every request where the log is on, so it is put together by hand: what a line holds of the head
and of the client is worked out once for a plan, since heads come again; the rest is one `%` over bytes.
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from prefork_lb.clock import monotonic
from prefork_lb.log_schema import PRESETS, template_parts
from prefork_lb.logs.texts import quoted, shown
from prefork_lb.logs.values import TARGET_BYTES, VALUES, Value, attempts, fields_named, picked, response_index, session
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.server import Server

Format = Callable[[Request], bytes]
"""Makes the line of an exchange that is over, with its newline."""

_OF_THE_HEAD = ("client", "method", "scheme", "host", "target", "protocol", "referer", "user_agent", "pool")
_LONGEST_ERROR = 1024
_LINE = (b'{"time":"%b%03dZ",%b"status":%d,"bytes_in":%d,"bytes_out":%d,%b"session":"%b",%b"total_ms":%.3f,'
         b'"ending":"%b"%b}\n')
_PLAIN_PHASES = b'"attempts":1,"retries":0,"queue_ms":0,"connect_ms":0,'
_MOST_SERVERS = 4096  # remembered, with the reasons why they are picked


def make_format(name: str, request_fields: Sequence[str], response_fields: Sequence[str]) -> Format:
    """The format of this name: "json", "combined" or a template. The fields are those that lines in JSON have in addition."""
    if name == "json":
        return JSONLines(request_fields, response_fields)
    return TemplateLines(PRESETS.get(name, name))


class _WallClock:
    """From instants of the monotonic clock to the time of day, whose text is made once a second."""

    def __init__(self, text: Callable[[int], bytes]) -> None:
        self._text = text
        self._second = -1
        self._offset_s = 0.0
        self._until = 0.0  # the monotonic instant at which the next second begins
        self.prefix = b""

    def milliseconds(self, instant: float) -> int:
        """Those behind the second whose text is `prefix`."""
        if not self._until - 1 <= instant < self._until:
            self._offset_s = time.time() - monotonic()  # anew: the time of day may have been set
            second = int(instant + self._offset_s)
            self._until = second + 1 - self._offset_s
            self.prefix = self._text(second)
        return int((instant - self._until + 1) * 1000)


def _utc(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()


class JSONLines:
    """One object a line, as `log_schema.FIELDS` says."""

    def __init__(self, request_fields: Sequence[str] = (), response_fields: Sequence[str] = ()) -> None:
        self._request_fields = [name.lower().encode() for name in request_fields]
        self._response_fields = [name.lower().encode() for name in response_fields]
        self._clock = _WallClock(_utc)
        self._pid = b'"pid":%d,' % os.getpid()
        self._servers: dict[tuple[Server, bytes], bytes] = {}

    def __call__(self, request: Request) -> bytes:
        ended_at, plan, server = request.ended_at, request.plan, request.server
        clock = self._clock
        milliseconds = clock.milliseconds(ended_at)
        if plan is None:
            about_head = self._about_head(request)
        else:
            about_head = plan.logged
            if not about_head:
                about_head = plan.logged = self._about_head(request)
        about_server = b""
        if server is not None:
            why = picked(request)
            about_server = self._servers.get((server, why)) or self._about_server(server, why)
        if request.attempts == 1 and not request.queue_s and not request.connect_s and request.leased_at:
            phases = _PLAIN_PHASES
        else:
            phases = b'"attempts":%d,"retries":%d,"queue_ms":%.3f,"connect_ms":%.3f,' % (
                attempts(request), request.retries, request.queue_s * 1e3, request.connect_s * 1e3)
        if request.answered_at:
            phases += b'"first_byte_ms":%.3f,' % ((request.answered_at - request.leased_at) * 1e3)
        more = b""
        if request.error or request.failures or self._response_fields:
            more = self._more(request)
        return _LINE % (clock.prefix, milliseconds, about_head, request.status, request.bytes_in, request.bytes_out, about_server,
                        session(request), phases, (ended_at - request.started) * 1e3, request.ending.encode(), more)

    def _about_head(self, request: Request) -> bytes:
        parts = [self._pid]
        for name in _OF_THE_HEAD:
            value = VALUES[name](request)
            if isinstance(value, bytes):
                parts.append(b'"%b":%b,' % (name.encode(), quoted(value, TARGET_BYTES if name == "target" else 512)))
        if found := fields_named(self._request_fields, request.head.index):
            parts.append(b'"request_fields":%b,' % _object(found))
        return b"".join(parts)

    def _about_server(self, server: Server, why: bytes) -> bytes:
        if len(self._servers) >= _MOST_SERVERS:
            self._servers.clear()
        made = self._servers[server, why] = b'"server":%b,"picked":"%b",' % (quoted(server.name.encode()), why)
        return made

    def _more(self, request: Request) -> bytes:
        parts = []
        for name in ("error", "failures"):
            value = VALUES[name](request)
            if isinstance(value, bytes):
                parts.append(b',"%b":%b' % (name.encode(), quoted(value, _LONGEST_ERROR)))
            elif isinstance(value, list):
                parts.append(b',"%b":[%b]' % (name.encode(), b",".join([quoted(each, _LONGEST_ERROR) for each in value])))
        if found := fields_named(self._response_fields, response_index(request)):
            parts.append(b',"response_fields":%b' % _object(found))
        return b"".join(parts)


def _object(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (quoted(name), quoted(value)) for name, value in pairs])


class TemplateLines:
    """A line of text by a template."""

    def __init__(self, template: str) -> None:
        self._clock = _WallClock(_utc)
        self._local = _WallClock(_local)
        self._parts = [(text, self._getter(name)) for text, name in template_parts(template)]

    def __call__(self, request: Request) -> bytes:
        line = "".join([text if get is None else text + get(request) for text, get in self._parts])
        return line.replace("\n", "\\n").encode("utf-8", "backslashreplace") + b"\n"

    def _getter(self, name: str) -> Callable[[Request], str] | None:
        if not name:
            return None
        if name == "time":
            return self._time
        if name == "local_time":
            return self._local_time
        kind, colon, field = name.partition(":")
        if colon:
            wanted = [field.encode("latin-1")]
            if kind == "request":
                return lambda request: _joined(fields_named(wanted, request.head.index))
            return lambda request: _joined(fields_named(wanted, response_index(request)))
        value, most = VALUES[name], TARGET_BYTES if name == "target" else _LONGEST_ERROR
        return lambda request: _text(value(request), most)

    def _time(self, request: Request) -> str:
        milliseconds = self._clock.milliseconds(request.ended_at)
        return f"{self._clock.prefix.decode()}{milliseconds:03d}Z"

    def _local_time(self, request: Request) -> str:
        self._local.milliseconds(request.ended_at)
        return self._local.prefix.decode()


def _local(second: int) -> bytes:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second)).encode()


def _joined(found: Sequence[tuple[bytes, bytes]]) -> str:
    return shown(found[0][1]) if found else "-"


def _text(value: Value, most: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return shown(value, most)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return "; ".join([shown(each, most) for each in value])
