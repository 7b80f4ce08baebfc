"""From a pool's settings to its source."""
from __future__ import annotations

from prefork_lb.config.discovery import DiscoveryConfig
from prefork_lb.discovery.source import Source


def make_source(settings: DiscoveryConfig) -> Source:
    """The source that these settings name. Only what it needs is imported: the libraries take megabytes of the controller."""
    if settings.file:
        from prefork_lb.discovery.file import FileSource
        return FileSource(settings.file, settings.interval)
    if settings.http:
        from prefork_lb.discovery.http import HTTPSource
        return HTTPSource(settings.http, settings.interval)
    from prefork_lb.discovery.dns import AddressSource, ServiceSource
    if settings.dns:
        return AddressSource(settings.dns, settings.interval, settings.resolver)
    return ServiceSource(settings.srv, settings.interval, settings.resolver)
