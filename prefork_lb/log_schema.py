"""What a line of the access log holds: the names, in their order, and what they mean. docs/logs.md has this table."""
from __future__ import annotations

import string
from typing import NamedTuple


class LogField(NamedTuple):
    """A field of a line."""

    type: str  # of its value in JSON
    doc: str


FIELDS = {
    "time": LogField("string", "When the exchange was over, in UTC, to the millisecond."),
    "pid": LogField("number", "The worker."),
    "client": LogField("string", "Address of the connection's other end. Absent: a unix socket, whose clients have none."),
    "method": LogField("string", 'Method of the request; "-" when its head could not be read.'),
    "scheme": LogField("string", "`http` or `https`, as the client's connection is."),
    "host": LogField("string", "The Host field. Absent: there was none."),
    "target": LogField("string", "Path and query as they came, 2048 bytes at most."),
    "protocol": LogField("string", "`HTTP/1.0` or `HTTP/1.1`."),
    "referer": LogField("string", "The Referer field, 512 bytes at most. Absent: there was none."),
    "user_agent": LogField("string", "The User-Agent field, 512 bytes at most. Absent: there was none."),
    "pool": LogField("string", "The pool. Absent: the request was refused before its pool was found."),
    "request_fields": LogField("object", "Fields of the request that `log.request_fields` names. Absent: it has none of them."),
    "user": LogField("string", "The user whose password the route has found right. Absent: it asks for none, or refused."),
    "status": LogField("number", "Status of the answer; 499: the client left before it had all of it."),
    "ending": LogField("string", "How it ended: `finished`, `client left`, `client timed out`, `refused`, `server failed`, "
                                 "`server timed out`, `server broke off`, `no server`, `overloaded`, `internal error`."),
    "error": LogField("string", "Why it did not finish: the phase and what happened. Absent: it finished."),
    "failures": LogField("array", "Failed attempts: server, phase, what happened. Absent: there were none."),
    "server": LogField("string", "The server that answered; without an answer that of the last attempt. Absent: none was asked."),
    "picked": LogField("string", "Why that server: `policy`, `key` (of the request), `session`, `only one`, `backup`, `trial` "
                                 "(after an ejection), `another attempt`. Absent as `server` is."),
    "session": LogField("string", "`new`, `kept` (at its server), `moved` (from a server that could not take it), or `none`: "
                                  "the pool has no sessions."),
    "attempts": LogField("number", "Requests that were sent to servers for this one."),
    "retries": LogField("number", "Those of them that went to another server than the first."),
    "bytes_in": LogField("number", "Bytes of the request's body that were received."),
    "queue_ms": LogField("number", "Milliseconds in the pool's queue."),
    "connect_ms": LogField("number", "Milliseconds of connecting to servers; 0: a kept connection was used."),
    "response_fields": LogField("object", "The same of the response, by `log.response_fields`."),
    "request_id": LogField("string", "The request's ID. Absent: `proxy.request_id` is off."),
    "trace_id": LogField("string", "The ID of its trace. Absent: `proxy.request_id` is off."),
    "bytes_out": LogField("number", "Bytes of the response's body that were sent."),
    "first_byte_ms": LogField("number", "Milliseconds from the claim of the first server to the head of the answer. Absent: "
                                        "none came."),
    "total_ms": LogField("number", "Milliseconds from the request's head to the end of the exchange."),
}
"""By name, in the order of a line in JSON."""

PRESETS = {
    "combined": '{client} - {user} [{local_time}] "{method} {target} {protocol}" {status} {bytes_out} "{referer}" "{user_agent}"',
}
"""Templates that have a name."""

_FORMS = ("request", "response")


def template_parts(template: str) -> list[tuple[str, str]]:
    """A template as pieces of text, each with the name of the value behind it ("": none). Raises ValueError for what is none."""
    parts = []
    for text, name, form, conversion in string.Formatter().parse(template):
        if name is not None:
            if conversion:
                raise ValueError(f'"!{conversion}" has no meaning here')
            if form and name not in _FORMS:
                raise ValueError(f'"{{{name}:{form}}}": only {{request:NAME}} and {{response:NAME}} have a colon')
            if name in _FORMS and not form:
                raise ValueError(f'"{{{name}}}" names no field; expected {{{name}:NAME}}')
            if name not in _FORMS and name != "local_time" and (name not in FIELDS or FIELDS[name].type == "object"):
                raise ValueError(f'there is no "{{{name}}}"; expected one of {", ".join(template_names())}')
        parts.append((text, f"{name}:{form.lower()}" if form else name or ""))
    return parts


def template_names() -> list[str]:
    """What may stand in braces in a template."""
    return [*(name for name, field in FIELDS.items() if field.type != "object"), "local_time", "request:NAME", "response:NAME"]
