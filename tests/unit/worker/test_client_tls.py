"""Which context connections begin with: the one with the keys of tickets that all workers share, or one of this worker."""
from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from prefork_lb.worker.client_tls import client_context, ticket_context
from tests.support.certificates import make_pair, needs_openssl

pytestmark = needs_openssl


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    pair = make_pair(tmp_path, "default", "localhost")
    found = Config()
    found.set("certfile", str(pair.certificate))
    found.set("keyfile", str(pair.key))
    found.set("ca_certs", str(pair.certificate))
    return found


def test_connections_begin_with_the_keys_that_workers_share(settings: Config) -> None:
    first = client_context(settings, ())
    assert first is ticket_context() is client_context(settings, ())
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert first.minimum_version == made.minimum_version and first.maximum_version == made.maximum_version
    assert first.options == made.options & ~ssl.OP_IGNORE_UNEXPECTED_EOF


@pytest.mark.parametrize("asked", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_where_clients_show_certificates_a_ticket_of_before_is_worth_nothing(settings: Config, asked: ssl.VerifyMode) -> None:
    settings.set("cert_reqs", asked)
    first = client_context(settings, ())
    assert first is not ticket_context() and first.verify_mode is asked


def test_a_sites_own_contexts_are_used_as_they_are(settings: Config) -> None:
    def hook(config: Config, make: Callable[[], ssl.SSLContext]) -> Any:
        context = make()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    settings.set("ssl_context", hook)
    first = client_context(settings, ())
    assert first is not ticket_context() and first.minimum_version is ssl.TLSVersion.TLSv1_3
