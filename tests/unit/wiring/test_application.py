"""What ProxyWorker asks of the application."""
from __future__ import annotations

from prefork_lb.wiring.application import Application
from prefork_lb.worker.setup import ProxyApplication


def test_proxy_worker_knows_the_application_by_its_setup() -> None:
    """Otherwise it would call it by WSGI like any other: no tunnels, no interim responses, and slower."""
    assert issubclass(Application, ProxyApplication)
