"""What ProxyWorker asks of the application, and how it starts in a worker."""
from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from gunicorn.config import Config as GunicornConfig

from prefork_lb.config.model import Config
from prefork_lb.config.routes import BandwidthConfig, RouteConfig
from prefork_lb.errors import ConfigError
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.upstream.runtime import BLOCKING
from prefork_lb.wiring import application, host
from prefork_lb.wiring.application import Application
from prefork_lb.worker.setup import ProxyApplication
from tests.unit.shared.processes import Master, Signals, running


def test_proxy_worker_knows_the_application_by_its_setup() -> None:
    """Otherwise it would call it by WSGI like any other: no tunnels, no interim responses, and slower."""
    assert issubclass(Application, ProxyApplication)


class Starting(Application):
    """A worker of a master of the test's, which fails with the errors it was told and is made then."""

    def __init__(self, master: Master, failures: list[Exception]) -> None:
        super().__init__(Config({}))
        self._made_under = master.pid
        self._failures = failures

    def _make_worker_for(self, *_: object) -> str:  # type: ignore[override]
        if self._failures:
            raise self._failures.pop(0)
        return "a worker"

    def try_until_made(self) -> object:
        return self._try_until_made(BLOCKING)


def shortages() -> list[Exception]:
    return [OSError(number, os.strerror(number)) for number in (errno.ENFILE, errno.ENFILE, errno.ENOMEM)]


def be_a_sibling(segment: Segment, signals: Signals) -> Callable[[], None]:
    def run() -> None:
        Ledger(segment)
        signals.send()
        signal.pause()

    return run


def test_a_worker_beside_others_waits_out_a_shortage_of_the_host(
    master: Master, segment: Segment, signals: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception would end the whole instance: gunicorn's master takes it for a worker that cannot boot."""
    with running(be_a_sibling(segment, signals)):
        signals.wait()
        assert Starting(master, shortages()).try_until_made() == "a worker"
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "[Errno 23] Too many open files in system", "[Errno 12] Cannot allocate memory"]


def test_siblings_that_cannot_be_looked_for_now_are_taken_to_be_there(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> bool:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(application, "has_other_workers", refuse)
    assert Starting(master, shortages()).try_until_made() == "a worker"


def test_a_worker_that_is_alone_fails_with_the_reason(master: Master, segment: Segment) -> None:
    with pytest.raises(OSError, match="Too many open files in system"):
        Starting(master, shortages()).try_until_made()


def test_a_sync_worker_does_not_start_with_what_it_cannot_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long response would be cut, and its worker killed, at gunicorn's `timeout`."""
    settings = GunicornConfig()
    monkeypatch.setattr(host, "gunicorn_worker", lambda: SimpleNamespace(cfg=settings, ppid=1))
    config = Config({}, routes=(RouteConfig("web"), RouteConfig("web", bandwidth=BandwidthConfig(1024))), source="a.toml")
    with pytest.raises(ConfigError, match=r"a.toml: routes\[1\].bandwidth: gunicorn's sync workers cannot keep it"):
        Application(config)._make_worker_for(config, BLOCKING)
    settings.set("threads", 2)  # then gunicorn takes gthread
    assert not host.is_sync_worker()
