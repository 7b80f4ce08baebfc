"""The instance that a command is about: by its shared memory on this host, or by its API anywhere. Commands see no difference."""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import click

from prefork_lb.config.model import Config
from prefork_lb.shared.events import Event

Document = dict[str, Any]
"""An instance as `GET /api/v1/instance` tells it; see docs/admin.md."""


Key = tuple[str, str]
"""A server of an instance: its pool and its address."""


class Leftover(Protocol):
    """What is still on servers that get no new requests."""

    @property
    def in_flight(self) -> int:
        """Requests in flight. Raises ClickException when the instance has ended or cannot be reached."""

    def left(self, still: bool = False) -> str:
        """What is left, in words: requests in flight, as "3 in flight" or "3 still in flight", and sessions that the pools keep.

        Empty: nothing.
        """

    def nothing(self) -> str:
        """The words for the end of a wait: nothing is left, and how that is known of sessions."""


class Instance(Protocol):
    """What commands see and do. Each method raises ClickException when the instance cannot be reached, or refuses."""

    name: str
    """For messages."""

    def document(self) -> Document:
        """The instance at this moment. Rates are over the seconds since the first look."""

    def events(self, after: int) -> list[Event]:
        """The events with a number above `after` that are still known, oldest first."""

    def configuration(self) -> Config:
        """The configuration in force. The API shows no secrets."""

    def reload(self) -> None:
        """Let the instance check its file and load it again. Raises ClickException, with all problems, when it would not take."""

    def servers(self) -> list[Key]:
        """All servers."""

    def leftover(self, servers: Sequence[Key]) -> Leftover:
        """What these servers still have, from now on; also when they are removed."""

    def set_admin(self, pool: str, address: str, state: str) -> None:
        """Set a server's administrative state: ready, drain or maintenance."""

    def set_weight(self, pool: str, address: str, weight: int | None) -> None:
        """Set a server's weight; None: that of the configuration."""

    def set_limit(self, pool: str, address: str, limit: int | None) -> None:
        """Set the most requests in flight on a server, 0: no limit; None: that of the configuration."""

    def add_server(self, pool: str, address: str, weight: int, max_connections: int, backup: bool) -> str:
        """Add a server to a pool; its address as the instance writes it. 0 connections: no limit."""

    def remove_server(self, pool: str, address: str) -> None:
        """Remove a server from a pool; requests that it has finish."""

    def set_split(self, split: Document, weights: Mapping[str, int | None]) -> None:
        """Set weights of one of the document's splits, by pool; None: that of the configuration."""

    def scale(self, pool: str, servers: int | None) -> None:
        """Have so many servers in a pool that scales; None: as many as its rule wants."""

    def roll(self, pool: str, surge: int) -> None:
        """Begin to replace the servers of a pool that scales by new ones, so many at a time."""


class InstanceChoice(NamedTuple):
    """The instance that the options name."""

    master: int | None
    url: str | None
    token_file: str | None

    def open(self) -> Instance:
        """The one instance. Raises ClickException."""
        if self.url is None:
            from prefork_lb.cli.local import local_instance

            return local_instance(self.master)
        return self._remote(self.url)

    def open_all(self) -> list[Instance]:
        """All instances of this user, or the one that the options name. Raises ClickException."""
        if self.url is not None:
            return [self._remote(self.url)]
        from prefork_lb.cli.local import local_instances

        return list(local_instances(self.master))

    def _remote(self, url: str) -> Instance:
        from prefork_lb.cli.remote import RemoteInstance, read_token  # loads `requests`

        return RemoteInstance(url, read_token(self.token_file) if self.token_file is not None else "")


def instance_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name an instance; the command gets them as `choice`."""

    @click.option("--master", type=int, metavar="PID", help="gunicorn's master, when several instances run.")
    @click.option("--url", metavar="URL", help="Of the administration interface, for an instance elsewhere: http://HOST:PORT.")
    @click.option("--token-file", metavar="FILE", help='With --url: the file of the token, "TOKEN" or "operator TOKEN".')
    @functools.wraps(command)
    def with_choice(master: int | None, url: str | None, token_file: str | None, **others: Any) -> None:
        if url is not None and master is not None:
            raise click.UsageError("--url and --master: give one of them")
        if token_file is not None and url is None:
            raise click.UsageError("--token-file goes with --url")
        command(choice=InstanceChoice(master, url, token_file), **others)

    return with_choice
