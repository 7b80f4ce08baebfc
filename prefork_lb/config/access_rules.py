"""What cannot work in the rules of who may use a route."""
from __future__ import annotations

import importlib.util
import re
from urllib.parse import urlsplit

from prefork_lb.config.access import BasicAuthConfig, ForwardAuthConfig
from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.passwords import read_passwords
from prefork_lb.config.positions import Path
from prefork_lb.config.routes import RouteConfig
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address
from prefork_lb.wire import grammar
from prefork_lb.wire.fields import HOP_BY_HOP

# What the server gets of these is not for a user's name.
_TAKEN = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"via"}
_REALM = re.compile(r"[ !#-\[\]-~]*")
_TARGET = re.compile(r"[/?][!\"$-~]*")  # without a fragment
_PACKAGES = ("bcrypt", "argon2")


def check_access(route: RouteConfig, place: Path, report: ReportProblem) -> None:
    """Report what is wrong with who may use a route. Values that were reported before stand as None in it and are passed over."""
    if route.basic_auth is not None:
        _basic(route.basic_auth, (*place, "basic_auth"), report)
    if route.forward_auth is not None:
        _forward(route.forward_auth, (*place, "forward_auth"), report)


def _basic(basic: BasicAuthConfig, place: Path, report: ReportProblem) -> None:
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        report(place, f"needs the packages bcrypt and argon2-cffi ({missing[0]} is missing): pip install 'prefork_lb[auth]'")
    if basic.realm is not None and not _REALM.fullmatch(basic.realm):
        report((*place, "realm"), f"{shown(basic.realm)} is no realm; expected printable ASCII without quotes and backslashes")
    if basic.field:
        _field(basic.field, (*place, "field"), report)
    if basic.file is not None:
        try:
            read_passwords(basic.file)
        except ValueError as exc:
            report((*place, "file"), str(exc))


def _forward(forward: ForwardAuthConfig, place: Path, report: ReportProblem) -> None:
    if forward.url is not None and not _is_url(forward.url):
        report((*place, "url"), f"{shown(forward.url)} is no URL of a server; expected one like http://127.0.0.1:9091/verify")
    for number, name in enumerate(forward.fields or ()):
        if name is not None:
            _field(name, (*place, "fields", number), report)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parse_address(f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        return False
    target = text.partition("://")[2].removeprefix(parts.netloc)
    return (parts.scheme in ("http", "https") and bool(parts.netloc) and "@" not in parts.netloc
            and (not target or _TARGET.fullmatch(target) is not None))


def _field(name: str, place: Path, report: ReportProblem) -> None:
    """Report a name that no field for the server can have."""
    if not grammar.token.fullmatch(name.encode()):
        report(place, f"{shown(name)} is no name of a field")
    elif name.lower().encode() in _TAKEN:
        report(place, f"{name} is the balancer's own matter")
