"""From a server of the configuration, or one that was added at run time, to the object that a worker's pool has."""
from __future__ import annotations

import logging
import ssl
from collections.abc import Callable

from prefork_lb.clock import monotonic
from prefork_lb.config.added import added_server
from prefork_lb.config.current import path_of
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig, ServerConfig, TLSConfig
from prefork_lb.errors import ConfigError
from prefork_lb.net.address import parse_address
from prefork_lb.net.tls import ClientTLS, upstream_context
from prefork_lb.shared.members import Member
from prefork_lb.shared.table import Standing
from prefork_lb.upstream.idle_connections import IdleConnections
from prefork_lb.upstream.queue import Queue
from prefork_lb.upstream.server import UNLIMITED, Server

MakeQueue = Callable[[int], Queue | None]
"""Makes the queue of a server's own in this slot, if its pool has such."""

log = logging.getLogger("prefork_lb")


def tls_context(name: str, pool: PoolConfig, config: Config) -> ssl.SSLContext:
    """How a pool speaks TLS. Raises ConfigError when a file is of no use."""
    settings = pool.tls or TLSConfig()
    try:
        return upstream_context(settings.verify, *map(path_of, (settings.ca_file, settings.certificate, settings.key)))
    except ValueError as exc:  # it was checked with the configuration; the files have changed since
        raise ConfigError([f"{config.source}: pools.{name}.tls: {exc}"]) from exc


class ServerMaker:
    """Makes the servers of one pool."""

    def __init__(self, name: str, pool: PoolConfig, config: Config, context: ssl.SSLContext | None,
                 make_queue: MakeQueue) -> None:
        """`context` is for TLS toward the servers; None: no server that the configuration names needs one."""
        self._name = name
        self._pool = pool
        self._config = config
        self._context = context
        self._make_queue = make_queue
        self._named = {server.address: server for server in pool.servers}

    def from_configuration(self, server: ServerConfig, slot: int) -> Server:
        """The server that the configuration describes, in this slot."""
        keepalive, settings = self._config.proxy.keepalive, self._pool.tls or TLSConfig()
        address, context = parse_address(server.address), self._context
        return Server(
            slot, address, server.address, server.weight, server.max_connections or UNLIMITED, server.backup,
            # One with a PROXY header belongs to its client.
            IdleConnections(0 if server.proxy_protocol else keepalive.connections, keepalive.seconds, monotonic, server.address),
            tls=ClientTLS(context, settings.server_name or address.tls_name) if context and address.tls else None,
            route=server.route, public=server.public.rstrip("/").encode(), proxy_protocol=server.proxy_protocol,
            own_queue=self._make_queue(slot))

    def from_table(self, member: Member) -> Server | None:
        """The server that the table has; None, with a message in the log, when it needs TLS and there is no context for that."""
        server = self._named.get(member.address)
        if server is None or member.standing is Standing.ADDED:
            rules = member.rules
            server = added_server(self._pool, member.address, rules.weight, rules.max_connections, rules.backup)
        if self._context is None and parse_address(server.address).tls:
            try:
                self._context = tls_context(self._name, self._pool, self._config)
            except ConfigError as exc:
                log.error("server %s cannot be used: %s", server.address, exc)
                return None
        return self.from_configuration(server, member.slot)
