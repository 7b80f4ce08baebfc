"""gunicorn's settings for prefork_lb, from the TOML configuration. gunicorn's command line wins over them.

Imports nothing but the configuration: with gevent workers, what is imported here is loaded before gevent patches the
standard library.
"""
from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

from prefork_lb.config.current import load_as_master, path_of
from prefork_lb.config.model import Config
from prefork_lb.error_log import JSON_VARIABLE
from prefork_lb.errors import ConfigError
from prefork_lb.gunicorn.binds import binds
from prefork_lb.gunicorn.hooks import on_exit, on_starting, post_worker_init
from prefork_lb.gunicorn.worker_count import worker_count
from prefork_lb.net.descriptors import most_clients

CONF_FILE = Path(__file__).with_name("conf.py")
"""The gunicorn configuration file that comes with the package."""

# gunicorn refuses longer request lines whatever is set (its MAX_REQUEST_LINE).
_GUNICORN_MOST_LINE_BYTES = 8190
_MOST_CONNECTIONS = 100_000
_MEMORY = "/dev/shm"  # a file system without a disk


def settings() -> dict[str, Any]:
    """The settings by name, as a gunicorn configuration file defines them. Exits with the problems of a configuration that
    cannot be used; at a reload the last good one stays in force instead."""
    try:
        config = load_as_master()
    except ConfigError as exc:
        print(f"{exc}\nprefork_lb: not started", file=sys.stderr)
        sys.exit(1)
    certificates = config.listen.certificates
    os.environ.pop(JSON_VARIABLE, None)  # of the master before, after an upgrade
    if is_json := config.log.errors == "json":
        os.environ[JSON_VARIABLE] = "1"
    return {
        **({"logger_class": "prefork_lb.gunicorn.json_logger.JSONLogger"} if is_json else {}),
        # gunicorn listens with TLS when it has a certificate; ProxyWorker adds the others.
        "certfile": path_of(certificates[0].certificate) if certificates else None,
        "keyfile": (path_of(certificates[0].key) or None) if certificates else None,
        "bind": binds(config),
        "workers": worker_count(config),
        "worker_class": "prefork_lb.worker.ProxyWorker",
        # Client connections of a worker at most.
        "worker_connections": _worker_connections(),
        "keepalive": 75,  # seconds; nginx's default. gunicorn's 2 s would make browsers connect anew for every click
        "timeout": _timeout_s(config),
        "graceful_timeout": 30,
        # The heartbeat is a file that each worker touches. On a busy disk that may take seconds, and the worker's clients wait.
        "worker_tmp_dir": _MEMORY if os.access(_MEMORY, os.W_OK) else None,
        "limit_request_line": min(config.proxy.limits.line_bytes, _GUNICORN_MOST_LINE_BYTES),
        "limit_request_field_size": config.proxy.limits.line_bytes,
        "limit_request_fields": config.proxy.limits.fields,
        # prefork_lb itself decides which clients' X-Forwarded-Proto it believes (proxy.trusted_proxies).
        "secure_scheme_headers": {},
        # gunicorn puts this socket at one fixed place in the home directory. Two instances would both want it, and a hardened
        # service has no home.
        "control_socket_disable": True,
        "on_starting": on_starting,
        "post_worker_init": post_worker_init,
        "on_exit": on_exit,
    }


def _worker_connections() -> int:
    # The soft limit is low for programs that use select(2). Our workers do not use it, so we raise the limit to the hard one.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard if hard != resource.RLIM_INFINITY else _MOST_CONNECTIONS
    return min(_MOST_CONNECTIONS, most_clients(most))


def _timeout_s(config: Config) -> int:
    # A sync worker gives no heartbeat while it waits for a server. gunicorn must not kill it before the longest such wait ends.
    timeouts = config.proxy.timeouts
    return int(timeouts.response + timeouts.connect * 2 + timeouts.idle) + 30
