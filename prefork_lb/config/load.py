"""Find, read and check a configuration."""
from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import NamedTuple

import msgspec

from prefork_lb.config.admin import is_of_this_host
from prefork_lb.config.decode import decode
from prefork_lb.config.model import Config
from prefork_lb.config.positions import Path, key_lines
from prefork_lb.config.route_rules import overlaps
from prefork_lb.config.validate import validate
from prefork_lb.errors import ConfigError, printable

SYSTEM_FILE = "/etc/prefork-lb/prefork_lb.toml"
LOCAL_FILE = "prefork_lb.toml"

_FILE_LIMIT_BYTES = 4 << 20  # room for 100,000 servers
_SERVERS = "$PREFORK_LB_SERVERS"
_VARIABLES = {"listen.bind": "$PREFORK_LB_BIND", "pools.default.policy": "$PREFORK_LB_POLICY"}
"""The other variables of the environment, by the keys that they set."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BAD_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.S)


class Loaded(NamedTuple):
    """A configuration, and what is to be told about it. Both come from one reading: an editor may write the file meanwhile."""

    config: Config
    notices: tuple[str, ...]
    """What an operator should know and no error is, a line each."""


def load(path: str | FilePath | None = None, environ: Mapping[str, str] | None = None, cwd: FilePath | None = None) -> Config:
    """The configuration that `find_and_load` finds. Raises ConfigError with all problems at once."""
    return find_and_load(path, environ, cwd).config


def find_and_load(path: str | FilePath | None = None, environ: Mapping[str, str] | None = None,
                  cwd: FilePath | None = None) -> Loaded:
    """The configuration of `path`, else of $PREFORK_LB_CONFIG, ./prefork_lb.toml or /etc/prefork-lb/prefork_lb.toml, else the
    servers of $PREFORK_LB_SERVERS. Raises ConfigError with all problems at once."""
    environ = os.environ if environ is None else environ
    file = path if path is not None else environ.get("PREFORK_LB_CONFIG") or None
    if file is not None:
        return _from_file(str(file))
    here = (cwd or FilePath()) / LOCAL_FILE
    for candidate in (here, FilePath(SYSTEM_FILE)):
        if os.path.exists(candidate):  # not Path.exists: that raises where the folder may not be looked into
            return _from_file(str(candidate))
    if environ.get("PREFORK_LB_SERVERS"):
        return _from_environment(environ)
    try:
        folder = str(here.parent.resolve())
    except OSError:
        folder = "the working directory, which has been removed"
    raise ConfigError([
        f"no configuration: $PREFORK_LB_CONFIG is not set, there is no {LOCAL_FILE} in {folder}, "
        f"no {SYSTEM_FILE}, and $PREFORK_LB_SERVERS is not set; write one of the files, "
        "or set PREFORK_LB_SERVERS=127.0.0.1:8001,127.0.0.1:8002"])


def load_file(name: str) -> Config:
    """The configuration in the file `name`. Raises ConfigError."""
    return _from_file(name).config


def _from_file(name: str) -> Loaded:
    if not name:
        raise ConfigError(["the name of the configuration's file is empty"])
    try:
        with open(name, "rb") as file:
            data = file.read(_FILE_LIMIT_BYTES + 1)
        if len(data) > _FILE_LIMIT_BYTES:
            raise ConfigError([f"{name}: longer than {_FILE_LIMIT_BYTES >> 20} MiB, the most that is read"])
        text = data.decode()
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        if isinstance(exc, UnicodeDecodeError):
            raise ConfigError([f"{name}: not UTF-8: {exc.reason} at byte {exc.start}"]) from exc
        raise ConfigError([f"{name}: cannot be read: {getattr(exc, 'strerror', exc)}"]) from exc
    # Some editors put a byte order mark first; TOML has none.
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        match = _BAD_SYNTAX.fullmatch(str(exc))
        line = int(match[2]) if match and match[2] else text.count("\n") + 1
        raise ConfigError([f"{name}:{line}: not TOML: {match[1] if match else exc}"]) from exc
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, nesting of thousands of levels
        raise ConfigError([f"{name}: not TOML that can be read: {exc}"]) from exc
    return _checked(values, name, key_lines(text))


def _notices(config: Config, lines: Mapping[Path, int]) -> tuple[str, ...]:
    found = [f"{_place(config.source, lines, ('routes', index))}: {what}" for index, what in overlaps(config.routes)]
    if config.admin is not None and not is_of_this_host(config.admin.address):
        found.append(f"{_place(config.source, lines, ('admin', 'bind'))}: reached from other hosts, without TLS: tokens can be "
                     "read on the way; put a proxy with TLS in front, or use a tunnel to an address of this host")
    return tuple(found)


def _checked(values: dict[str, object], source: str, lines: Mapping[Path, int]) -> Loaded:
    problems: list[tuple[int, str]] = []

    def report(path: Path, what: str) -> None:
        problems.append((_line(lines, path), f"{_place(source, lines, path)}: {what}"))

    config: Config = decode(Config, values, (), report)
    validate(config, report)
    if problems:
        raise ConfigError([text for _, text in sorted(problems, key=lambda problem: problem[0])])
    config = msgspec.structs.replace(config, source=source)
    return Loaded(config, _notices(config, lines))


def _from_environment(environ: Mapping[str, str]) -> Loaded:
    servers: list[object] = []
    for entry in filter(None, (part.strip() for part in environ["PREFORK_LB_SERVERS"].split(","))):
        address, *options = entry.split()
        server: dict[str, object] = {"address": address}
        for option in options:
            key, _, value = option.partition("=")
            server[key] = _from_text(value)
        servers.append(server)
    pool: dict[str, object] = {"servers": servers}
    if environ.get("PREFORK_LB_POLICY"):
        pool["policy"] = environ["PREFORK_LB_POLICY"]
    values: dict[str, object] = {"pools": {"default": pool}}
    if environ.get("PREFORK_LB_BIND"):
        values["listen"] = {"bind": [part.strip() for part in environ["PREFORK_LB_BIND"].split(",") if part.strip()]}
    try:
        return _checked(values, _SERVERS, {})
    except ConfigError as exc:
        raise ConfigError([_of_its_variable(problem) for problem in exc.problems]) from exc


def _from_text(value: str) -> int | bool | str:
    if value.isascii() and value.isdigit():
        # int() refuses texts of more than 4300 digits. 400 of them are beyond every limit of a key, and are refused as such.
        return int(value.lstrip("0")[:400] or "0")
    return {"true": True, "false": False}.get(value, value)


def _of_its_variable(problem: str) -> str:
    for key, variable in _VARIABLES.items():
        if problem.startswith(f"{_SERVERS}: {key}"):
            return variable + problem.removeprefix(_SERVERS)
    return problem


def _line(lines: Mapping[Path, int], path: Path) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _quoted(key: str) -> str:
    """A key as TOML writes it, in quotes where it needs them, of a bounded length."""
    if _BARE_KEY.fullmatch(key):
        return key if len(key) <= 64 else f"{key[:61]}..."
    text = printable(key[:64].replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{text}"' if len(key) <= 64 else f'"{text}..."'


def _place(source: str, lines: Mapping[Path, int], path: Path) -> str:
    key = ""
    for part in path:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            key += ("." if key else "") + _quoted(part)
    return f"{source}:{_line(lines, path)}: {key}" if lines else f"{source}: {key}"
