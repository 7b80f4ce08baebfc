"""The section `[log]`."""
from __future__ import annotations

from typing import Annotated, Literal

from prefork_lb.config.section import Section, meta


class LogConfig(Section, frozen=True):
    """The access log, `[log]`, a line for each exchange, and the form of the error log; see [logs.md](logs.md)."""

    access: Annotated[str, meta(
        'Where lines go: a file\'s path; "-" for standard output; "syslog:" for the daemon of this host, or "syslog:HOST:PORT"; '
        '"journald:". None: there is no access log.'
    )] = ""
    format: Annotated[str, meta(
        '"json", "combined", or a template with names in braces, as in `"{client} {method} {target} {status} {total_ms}"`.'
    )] = "json"
    sample: Annotated[float, meta(
        "Share of exchanges that are written. Those that did not finish, or with a status of 500 and above, always are.",
        ge=0, le=1
    )] = 1.0
    request_fields: Annotated[tuple[str, ...], meta(
        "Names of fields of requests that lines in JSON hold in addition. Authorization and Cookie are secrets of your users."
    )] = ()
    response_fields: Annotated[tuple[str, ...], meta("The same of responses.")] = ()
    errors: Annotated[Literal["text", "json"], meta(
        "Form of gunicorn's error log, with our `gunicorn.conf.py`: text, or an object a line. A change takes a restart."
    )] = "text"
