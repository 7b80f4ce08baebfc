"""What a route may do with a request besides choosing its pool."""
from __future__ import annotations

import os

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.filter_rules import check_filters
from prefork_lb.config.positions import Path
from prefork_lb.config.routes import FieldChangesConfig, RespondConfig, RouteConfig
from prefork_lb.errors import shown
from prefork_lb.routing.actions import redirecting
from prefork_lb.routing.template import ONLY_IN_FIELDS, Template
from prefork_lb.wire import grammar
from prefork_lb.wire.fields import HOP_BY_HOP

_MOST_FILE_BYTES = 1 << 20
# What frames a message or belongs to a connection is this proxy's own matter.
_KEPT = HOP_BY_HOP | {b"content-length", b"expect", b"via"}
_DEFAULT_STATUS = RouteConfig().redirect_status


def check_actions(route: RouteConfig, place: Path, report: ReportProblem) -> None:
    """Report what a route cannot do. Values that were reported before stand as None in it and are passed over."""
    if route.redirect:
        _text(route.redirect, (*place, "redirect"), report)
        if not route.redirect.startswith(("/", "http://", "https://", "{scheme}://")) or not _is_visible(route.redirect):
            report((*place, "redirect"), f"{shown(route.redirect)} is no place to send clients to; expected http://, https:// or "
                   "a path")
    elif route.redirect_status not in (None, _DEFAULT_STATUS):
        report((*place, "redirect_status"), "has no meaning without redirect")
    if route.path:
        _text(route.path, (*place, "path"), report)
        if not route.path.startswith(("/", "{path}")) or not _is_visible(route.path):
            report((*place, "path"), f"{shown(route.path)} is no path; expected one that begins with a slash or {{path}}")
    for key in ("path", "request", "response", "body_limit", "concurrency", "bandwidth", "filters"):
        if getattr(route, key) and route.pool == "" and route.split == {}:
            report((*place, key), "has no meaning without pool: no server gets the request")
    check_filters(route.filters, (*place, "filters"), report)
    if route.respond is not None:
        _respond(route.respond, (*place, "respond"), report)
    for key, changes in (("request", route.request), ("response", route.response)):
        if changes is not None:
            _changes(changes, (*place, key), report)


def _text(text: str, place: Path, report: ReportProblem) -> None:
    try:
        if place[-1] == "redirect":
            redirecting(text, _DEFAULT_STATUS)
        names = Template(text).names
        if place[-1] in ("redirect", "path") and (found := set(names) & set(ONLY_IN_FIELDS)):
            report(place, f"{shown(text)}: {{{min(found)}}} is for fields only")
    except ValueError as exc:
        report(place, str(exc))


def _is_visible(text: str) -> bool:
    return all("\x21" <= character <= "\x7e" for character in text)


def _respond(respond: RespondConfig, place: Path, report: ReportProblem) -> None:
    sources = [key for key in ("body", "file", "folder") if getattr(respond, key)]
    if len(sources) > 1:
        report((*place, sources[1]), f"the answer has a {sources[0]} already; expected one of body, file and folder")
    if respond.status in (204, 304) and sources:
        report((*place, sources[0]), f"an answer with {respond.status} has no content")
    if respond.folder and respond.status not in (None, 200):
        report((*place, "status"), "has no meaning with folder")
    if respond.type is not None and not _is_value(respond.type):
        report((*place, "type"), f"{shown(respond.type)} is no value of a field")
    for name, value in (respond.fields or {}).items():
        _name(name, (*place, "fields", name), report)
        if value is not None and not _is_value(value):
            report((*place, "fields", name), f"{shown(value)} is no value of a field")
    if respond.file:
        check_file(respond.file, (*place, "file"), report)
    if respond.folder and not os.path.isdir(respond.folder):
        report((*place, "folder"), f"{shown(respond.folder)} is no folder")


def check_file(name: str, place: Path, report: ReportProblem) -> None:
    """Report a file that cannot be an answer."""
    try:
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size > _MOST_FILE_BYTES:
                report(place, f"{name} is larger than 1 MiB; let a server answer with it")
    except (OSError, ValueError) as exc:
        report(place, f"{shown(name)} cannot be read: {getattr(exc, 'strerror', exc)}")


def _changes(changes: FieldChangesConfig, place: Path, report: ReportProblem) -> None:
    for key in ("set", "add"):
        for name, value in (getattr(changes, key) or {}).items():
            _name(name, (*place, key, name), report)
            if value is None:
                continue
            if not _is_value(value):
                report((*place, key, name), f"{shown(value)} is no value of a field")
            _text(value, (*place, key, name), report)
    for number, name in enumerate(changes.remove or ()):
        if name is not None:
            _name(name, (*place, "remove", number), report)


def _name(name: str, place: Path, report: ReportProblem) -> None:
    if not grammar.token.fullmatch(name.encode()):
        report(place, f"{shown(name)} is no name of a field")
    elif name.lower().encode() in _KEPT:
        report(place, f"{name} frames the message or belongs to the connection, which is the balancer's own matter")


def _is_value(value: str) -> bool:
    return grammar.value.fullmatch(value.encode("utf-8", "replace")) is not None
