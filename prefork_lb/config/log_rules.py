"""What a type cannot say of `[log]`."""
from __future__ import annotations

import os

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.log import LogConfig
from prefork_lb.errors import shown
from prefork_lb.log_schema import PRESETS, template_parts
from prefork_lb.net.address import parse_address
from prefork_lb.wire import grammar


def check_log(log: LogConfig, report: ReportProblem) -> None:
    """Report what cannot work."""
    kind, colon, rest = (log.access or "").partition(":")
    if colon and kind == "syslog" and rest and not rest.startswith("/"):
        _check_address(rest, report)
    elif colon and kind == "journald" and rest:
        report(("log", "access"), f'{shown(log.access)}: nothing follows "journald:"')
    elif log.access and log.access != "-" and not (colon and kind in ("syslog", "journald")):
        folder = os.path.dirname(log.access) or "."
        if not os.path.isdir(folder):
            report(("log", "access"), f"there is no folder {shown(folder)}")
        elif os.path.isdir(log.access):
            report(("log", "access"), f"{shown(log.access)} is a folder; expected a file's path")
    if log.format not in (None, "json", *PRESETS):
        _check_template(log.format, report)
    for key, names in (("request_fields", log.request_fields), ("response_fields", log.response_fields)):
        for index, name in enumerate(names or ()):
            if name is not None and not grammar.token.fullmatch(name.encode()):
                report(("log", key, index), f"{shown(name)} is no name of a field")


def _check_address(text: str, report: ReportProblem) -> None:
    try:
        parse_address(text)
    except ValueError as exc:
        report(("log", "access"), str(exc))


def _check_template(template: str, report: ReportProblem) -> None:
    try:
        if not any(name for _, name in template_parts(template)):
            raise ValueError(f'{shown(template)} names nothing; expected "json", "combined", or a template with names in braces')
    except ValueError as exc:
        report(("log", "format"), str(exc))
