"""From the record of an exchange to its line.

The line in JSON is on the way of every request where the log is on, so it is put together by hand from pieces that come again:
that of a plan's head and client, and that of an ordinary exchange with a server. The rest are three numbers.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prefork_lb.clock import monotonic
from prefork_lb.log_schema import PRESETS, template_parts
from prefork_lb.logs.texts import line_text, quoted
from prefork_lb.logs.values import TARGET_BYTES, VALUES, Value, fields_named, response_index
from prefork_lb.proxy.request import FINISHED, Request
from prefork_lb.upstream.server import Server

Format = Callable[[Request], bytes]
"""Makes the line of an exchange that is over, with its newline."""

_OF_THE_HEAD = ("pid", "client", "method", "scheme", "host", "target", "protocol", "referer", "user_agent", "pool")
_OF_THE_EXCHANGE = ("user", "status", "ending", "error", "failures", "server", "picked", "session", "attempts", "retries",
                    "bytes_in", "queue_ms", "connect_ms")
_LONGEST_TEXT = 512
_ANSWERED = b'"bytes_out":%d,"first_byte_ms":%.3f,"total_ms":%.3f}\n'
_IDENTITY = b'"request_id":"%b","trace_id":"%b",'
_UNANSWERED = b'"bytes_out":%d,"total_ms":%.3f}\n'
_THOUSANDTHS = [b'%03dZ",' % min(number, 999) for number in range(1001)]  # a sum of instants may be rounded up
_MOST_KEPT = 4096
_Ordinary = tuple[Server | None, int, int]  # server, status, how many servers were usable


def make_format(name: str, request_fields: Sequence[str], response_fields: Sequence[str]) -> Format:
    """The format of this name: "json", "combined" or a template. The fields are those that lines in JSON have in addition."""
    if name == "json":
        return JSONLines(request_fields, response_fields)
    return TemplateLines(PRESETS.get(name, name))


class _WallClock:
    """From instants of the monotonic clock to the time of day, whose text is made once a second."""

    def __init__(self, text: Callable[[int], bytes]) -> None:
        self._text = text
        self.current = -1.0, b""  # the instant at which a second begins, and its text; threads replace both together

    def at(self, instant: float) -> tuple[float, bytes]:
        """The second of this instant, as `current` has it."""
        found = self.current
        if found[0] <= instant < found[0] + 1:
            return found
        offset_s = time.time() - monotonic()  # anew: the time of day may have been set
        second = int(instant + offset_s)
        self.current = found = second - offset_s, self._text(second)
        return found


def _utc(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()


class JSONLines:
    """One object a line, as `log_schema.FIELDS` says."""

    def __init__(self, request_fields: Sequence[str] = (), response_fields: Sequence[str] = ()) -> None:
        self._request_fields = [name.lower().encode() for name in request_fields]
        self._response_fields = [name.lower().encode() for name in response_fields]
        self._clock = _WallClock(lambda second: b'{"time":"' + _utc(second))
        self._kept: dict[_Ordinary, bytes] = {}  # what lines of ordinary exchanges hold of them

    def __call__(self, request: Request) -> bytes:
        ended_at, plan = request.ended_at, request.plan
        begins, prefix = self._clock.current
        if not begins <= ended_at < begins + 1:
            begins, prefix = self._clock.at(ended_at)
        if plan is None:
            about_head = self._about_head(request)
        else:
            about_head = plan.logged
            if not about_head:
                about_head = plan.logged = self._about_head(request)
        reply = request.reply
        about_exchange: bytes | None
        # An ordinary exchange has nothing of what few have, and differs from others by its numbers alone.
        if (reply is not None and plan is not None and request.ending is FINISHED and request.attempts == 1
                and request.session is None and request.passed is None and reply.lease.trial is None
                and not (request.connect_s or request.bytes_in or request.queue_s)):
            ordinary = request.server, request.status, plan.pool.usable
            about_exchange = self._kept.get(ordinary)
            if about_exchange is None:
                about_exchange = self._keep(ordinary, request)
        else:
            about_exchange = self._about_exchange(request)
        if request.identity is not None:
            about_exchange += _IDENTITY % (request.identity.request_id, request.identity.trace_id)
        if request.answered_at:
            numbers = _ANSWERED % (request.bytes_out, (request.answered_at - request.leased_at) * 1e3,
                                   (ended_at - request.started) * 1e3)
        else:
            numbers = _UNANSWERED % (request.bytes_out, (ended_at - request.started) * 1e3)
        return b"".join((prefix, _THOUSANDTHS[int((ended_at - begins) * 1000)], about_head, about_exchange, numbers))

    def _about_head(self, request: Request) -> bytes:
        parts = [_member(name, VALUES[name](request)) for name in _OF_THE_HEAD]
        if found := fields_named(self._request_fields, request.head.index):
            parts.append(b'"request_fields":%b,' % _object(found))
        return b"".join(parts)

    def _keep(self, ordinary: _Ordinary, request: Request) -> bytes:
        made = self._about_exchange(request)
        if not self._response_fields:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[ordinary] = made
        return made

    def _about_exchange(self, request: Request) -> bytes:
        parts = [_member(name, VALUES[name](request)) for name in _OF_THE_EXCHANGE]
        if self._response_fields and (found := fields_named(self._response_fields, response_index(request))):
            parts.append(b'"response_fields":%b,' % _object(found))
        return b"".join(parts)


def _member(name: str, value: Value) -> bytes:
    """A member of an object, with a comma behind it; nothing for what is not there."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        text = quoted(value, TARGET_BYTES if name == "target" else _LONGEST_TEXT)
    elif isinstance(value, int):
        text = b"%d" % value
    elif isinstance(value, float):
        text = b"%.3f" % value
    else:
        text = b"[%b]" % b",".join([quoted(each, _LONGEST_TEXT) for each in value])
    return b'"%b":%b,' % (name.encode(), text)


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
        value, most = VALUES[name], TARGET_BYTES if name == "target" else _LONGEST_TEXT
        return lambda request: _text(value(request), most)

    def _time(self, request: Request) -> str:
        begins, text = self._clock.at(request.ended_at)
        return f"{text.decode()}{int((request.ended_at - begins) * 1000):03d}Z"

    def _local_time(self, request: Request) -> str:
        return self._local.at(request.ended_at)[1].decode()


def _local(second: int) -> bytes:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second)).encode()


def _joined(found: Sequence[tuple[bytes, bytes]]) -> str:
    return line_text(found[0][1]) if found else "-"


def _text(value: Value, most: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return line_text(value, most)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return "; ".join([line_text(each, most) for each in value])
