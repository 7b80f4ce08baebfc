"""An instance anywhere, by the API of its administration interface."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click
import msgspec
import requests

from prefork_lb import __version__
from prefork_lb.cli.instances import Document, Key
from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published
from prefork_lb.shared.events import Event

_TIMEOUT_S = 10.0
_ROLES = ("operator", "reader")


def read_token(file: str) -> str:
    """The token in a file: a line "TOKEN", or "ROLE TOKEN" as the instance's own file has it. Raises ClickException."""
    try:
        with open(file, encoding="utf-8") as lines:
            words = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{file}: cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    # An operator may do whatever a reader may.
    for line in sorted(words, key=lambda line: line[0] == "reader"):
        if len(line) == 1:
            return line[0]
        if line[0] in _ROLES:
            return line[1]
    raise click.ClickException(f'{file}: no token in it; expected a line "TOKEN" or "operator TOKEN"')


class RemoteInstance:
    """See `instances.Instance`."""

    def __init__(self, url: str, token: str) -> None:
        self.name = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy of the environment, and no password of ~/.netrc
        self._session.headers["User-Agent"] = f"prefork-lb/{__version__}"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def document(self) -> Document:
        return self._json("GET", "instance")

    def events(self, after: int) -> list[Event]:
        found = self._json("GET", f"events?after={after}&limit=256")
        if found["last"] < after:  # the instance was restarted
            found = self._json("GET", "events?after=0&limit=256")
        return [msgspec.convert(event, Event) for event in found["events"]]

    def configuration(self) -> Config:
        try:
            return decode_published(self._ask("GET", "config").content)[0]
        except msgspec.MsgspecError as exc:
            raise click.ClickException(f"{self.name}: no configuration that this version can read: {exc}") from exc

    def reload(self) -> None:
        self._ask("POST", "reload", {})

    def set_admin(self, pool: str, address: str, state: str) -> None:
        self._change(pool, address, {"admin": state})

    def set_weight(self, pool: str, address: str, weight: int | None) -> None:
        self._change(pool, address, {"weight": weight})

    def set_limit(self, pool: str, address: str, limit: int | None) -> None:
        self._change(pool, address, {"max_connections": limit})

    def servers(self) -> list[Key]:
        return [(server["pool"], server["address"]) for server in _servers(self.document())]

    def leftover(self, servers: Sequence[Key]) -> RemoteLeftover:
        return RemoteLeftover(self, servers)

    def add_server(self, pool: str, address: str, weight: int, max_connections: int, backup: bool) -> str:
        wanted = {"address": address, "weight": weight, "max_connections": max_connections, "backup": backup}
        return str(self._ask("POST", f"pools/{quote(pool, safe='')}/servers", wanted).json()["address"])

    def remove_server(self, pool: str, address: str) -> None:
        self._ask("DELETE", f"{_path(pool, address)}?force=true")

    def set_split(self, split: Document, weights: Mapping[str, int | None]) -> None:
        self._ask("PATCH", f"splits/{split['id']}", {"weights": weights})

    def scale(self, pool: str, servers: int | None) -> None:
        self._ask("PATCH", f"pools/{quote(pool, safe='')}", {"scale": "auto" if servers is None else servers})

    def roll(self, pool: str, surge: int) -> None:
        self._ask("POST", f"pools/{quote(pool, safe='')}/roll", {"surge": surge})

    def _change(self, pool: str, address: str, what: dict[str, Any]) -> None:
        self._ask("PATCH", _path(pool, address), what)

    def _json(self, method: str, path: str) -> Document:
        try:
            found: Document = self._ask(method, path).json()
        except ValueError as exc:
            raise click.ClickException(f"{self.name} is no administration interface: it answers without JSON") from exc
        return found

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        try:
            answer = self._session.request(method, f"{self.name}/api/v1/{path}", json=body, timeout=_TIMEOUT_S,
                                           allow_redirects=False)
        except requests.RequestException as exc:
            raise click.ClickException(f"{self.name} cannot be reached: {_innermost_cause(exc)}") from exc
        if answer.status_code >= 300:
            raise click.ClickException(f"{self.name}: {_problem(answer)}")
        return answer


class RemoteLeftover:
    """See `instances.Leftover`."""

    def __init__(self, instance: RemoteInstance, servers: Sequence[Key]) -> None:
        self._instance = instance
        self._servers = servers

    @property
    def in_flight(self) -> int:
        return sum(server["in_flight"] for server in self._look())

    def left(self, still: bool = False) -> str:
        servers = self._look()
        in_flight = sum(server["in_flight"] for server in servers)
        parts = [f"{in_flight}{' still' if still else ''} in flight"] if in_flight else []
        return ", ".join([*parts, *(server["sessions_left"] for server in servers if server["sessions_left"])])

    def nothing(self) -> str:
        keeps = any(server["sessions_left"] is not None for server in self._look())
        return "nothing in flight any more" + (", and no sessions are left" if keeps else "")

    def _look(self) -> list[Document]:
        servers = _servers(self._instance.document())
        return [server for server in servers if (server["pool"], server["address"]) in self._servers]


def _servers(document: Document) -> list[Document]:
    return [server for pool in document["pools"] for server in pool["servers"]]


def _path(pool: str, address: str) -> str:
    return f"pools/{quote(pool, safe='')}/servers/{quote(address, safe='')}"


def _problem(answer: requests.Response) -> str:
    """Why a request was refused, in the words of the answer where it has some."""
    try:
        told = answer.json()
        return str(told.get("detail") or told["title"])
    except (ValueError, KeyError, AttributeError):
        return f"status {answer.status_code} {answer.reason}"


def _innermost_cause(exc: requests.RequestException) -> str:
    """The innermost cause: requests and urllib3 wrap it several times."""
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return getattr(cause, "strerror", None) or str(cause)
