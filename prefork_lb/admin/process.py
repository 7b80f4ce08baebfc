"""The process of the administration interface: from shared memory to a server that answers.

It never takes the ledger's lock to read, so neither a worker that holds the lock and does not run nor a killed controller keeps
anybody from looking. Killed itself, it leaves nothing behind: the lock is robust, and the controller starts another one.
"""
from __future__ import annotations

import logging
import os
import signal

from prefork_lb.admin.application import AdminApplication
from prefork_lb.admin.http_server import AdminServer
from prefork_lb.admin.listening import listen, remove_listener
from prefork_lb.admin.publishing import Publisher
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.metrics import prepare
from prefork_lb.observe.snapshot import Snapshots
from prefork_lb.shared.segment import Segment

log = logging.getLogger("prefork_lb")


def run(segment: Segment) -> int:
    """Serve the instance with this segment until the process is told to end; the exit code."""
    config = configuration_of(segment)
    if config is None or config.admin is None:
        return 0  # the controller looks again
    address = config.admin.address
    listener = listen(address)

    def end(*_: object) -> None:
        remove_listener(address)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    publisher = Publisher(Snapshots(segment))
    publisher.start()
    prepare(segment)
    server = AdminServer(AdminApplication(segment, config.admin, publisher), listener)
    log.info("administration interface at %s", address)
    server.run()
    return 0
