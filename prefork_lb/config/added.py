"""What a configuration says of a server that it does not name: one that was added to a pool at run time."""
from __future__ import annotations

from prefork_lb.config.pool import PoolConfig, ServerConfig


def added_server(pool: PoolConfig, address: str, weight: int = 1, max_connections: int = 0, backup: bool = False) -> ServerConfig:
    """The server as the pool would name it. It gets a PROXY header if all servers that the pool names get one, of one version."""
    versions = {server.proxy_protocol for server in pool.servers}
    return ServerConfig(address, weight, max_connections, backup, proxy_protocol=versions.pop() if len(versions) == 1 else 0)
