"""What is checked of a server, by the configuration."""
from __future__ import annotations

from collections.abc import Hashable

from prefork_lb.config.pool import HealthConfig, PoolConfig, ServerConfig, TLSConfig
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.controller.probe import Probe
from prefork_lb.controller.schedule import CheckRules, Target
from prefork_lb.controller.streak import CheckState
from prefork_lb.net.address import parse_address
from prefork_lb.wire.head import HeadLimits


def probe_for(server: ServerConfig, pool: PoolConfig, limits: HeadLimits) -> Probe:
    """The check of a server. `limits` are those of the traffic."""
    health, tls = pool.health or HealthConfig(type="tcp"), pool.tls or TLSConfig()
    return Probe(
        health.type, parse_address(server.address), health.method, health.path, health.host, tuple(health.headers.items()),
        parse_statuses(health.statuses), health.text, health.pattern, health.timeout, health.port, tls.verify, tls.ca_file,
        tls.certificate, tls.key, tls.server_name, server.proxy_protocol, limits)


def target_for(key: Hashable, server: ServerConfig, pool: PoolConfig, limits: HeadLimits, known: CheckState | None) -> Target:
    """The server as the schedule takes it. `known`: what earlier checks found."""
    health = pool.health or HealthConfig()
    return Target(key, probe_for(server, pool, limits),
                  CheckRules(health.interval, health.fast_interval, health.rise, health.fall, health.start), known)
