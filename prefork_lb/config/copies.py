"""Copies in memory of the files that a configuration names: certificates, keys, authorities, secrets, answers of routes.

gunicorn's master makes them when it reads the configuration, as open descriptors that its workers inherit. A worker that starts
later reads what the master has read, also when a file is gone by then, or half written. Each copy has a path, since OpenSSL reads
certificates from files.
"""
from __future__ import annotations

import os
from pathlib import Path

from prefork_lb.config.model import Config
from prefork_lb.config.passwords import read_passwords
from prefork_lb.config.secrets import read_secrets
from prefork_lb.errors import ConfigError
from prefork_lb.net.tls import check_pair, upstream_context


class Copies:
    """The copies of the files that one configuration names."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError when a file cannot be read, or is of no use: it has changed since the configuration was checked."""
        self._descriptors: dict[str, int] = {}
        try:
            self._copy(config)
        except (OSError, ValueError) as exc:
            self.close()
            raise ConfigError([f"{config.source}: a file that it names has changed while it was read: {exc}"]) from exc

    def path(self, file: str) -> str:
        """Where this process, or one that it has forked, reads the copy of a file; `file` itself if there is no copy."""
        descriptor = self._descriptors.get(file)
        return file if descriptor is None else f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        """Remove them. Processes that were forked before keep theirs."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _copy(self, config: Config) -> None:
        for entry in config.listen.certificates:
            check_pair(self._copied(entry.certificate), self._copied(entry.key))
        if config.cluster is not None and config.cluster.secret_file:
            read_secrets(self._copied(config.cluster.secret_file))
        for pool in config.pools.values():
            if pool.sticky is not None and pool.sticky.secret_file:
                read_secrets(self._copied(pool.sticky.secret_file))
            if pool.tls is not None:
                upstream_context(pool.tls.verify, self._copied(pool.tls.ca_file), self._copied(pool.tls.certificate),
                                 self._copied(pool.tls.key))

        for route in config.routes:
            if route.respond is not None:
                self._copied(route.respond.file)
            if route.basic_auth is not None:
                read_passwords(self._copied(route.basic_auth.file))
            for file in route.error_pages.values():
                self._copied(file)

    def _copied(self, file: str) -> str:
        """The path of this file's copy; empty when there is no file."""
        if file and file not in self._descriptors:
            content = Path(file).read_bytes()
            descriptor = self._descriptors[file] = os.memfd_create("prefork_lb")
            with open(descriptor, "wb", closefd=False) as copy:
                copy.write(content)
        return self.path(file)
