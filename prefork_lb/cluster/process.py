"""The process that shares with other balancers: no request waits for it, and none for the store.

It may hang in a name's look-up or in the network. So it is no part of the controller, which forgets what others have told when
nothing comes for a second (`shared.elsewhere`).
"""
from __future__ import annotations

import logging
import random
import signal
import socket
import threading

from prefork_lb.clock import monotonic
from prefork_lb.cluster.key_limits import SharedKeyLimits
from prefork_lb.cluster.rates import SharedRates
from prefork_lb.cluster.redis_store import RedisStore
from prefork_lb.cluster.sessions import SharedSessions
from prefork_lb.cluster.sharing import Sharing
from prefork_lb.cluster.store import StoreError
from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.published import decode_published
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import myself
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import published
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 0.5  # without the store
_JITTER = 0.1  # of the interval: balancers must not exchange in step
_MOST_BYTES_A_SECOND = 1 << 20
_MOST_REASONS = 8  # that are told while the store is away

log = logging.getLogger("prefork_lb")


def run(segment: Segment) -> int:
    """Share for the instance with this segment until the process is told to end; the exit code."""
    config = _section(segment)
    if config is None:
        return 0  # the controller looks again
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ledger = Ledger(segment, takes_row=False)
    with ledger.locked():
        segment.cells[at.H_CLUSTER], segment.cells[at.H_CLUSTER + 1] = myself()
    sessions = SharedSessions(segment, ledger) if segment.layout.sessions and config.secret_file else None
    sharing = Sharing(config.balancer or _own_name(segment), segment, ledger, States(segment), RedisStore(config),
                      sessions=sessions, rates=SharedRates(segment, ledger, monotonic) if segment.layout.rate_uses else None,
                      key_limits=SharedKeyLimits(segment, ledger) if segment.layout.keys else None)
    share(sharing, config.interval, stop)
    return 0


def share(sharing: Sharing, interval_s: float, stop: threading.Event) -> None:
    """Exchange again and again until `stop` is set; then leave."""
    rng, pause_s, is_away = random.Random(), 0.0, False
    told: set[str] = set()  # reasons; with several nodes they differ from one attempt to the next
    while not stop.wait(pause_s):
        try:
            size = sharing.exchange().size
        except StoreError as exc:
            if str(exc) not in told and len(told) < _MOST_REASONS:
                log.error("the store of [cluster] is away: %s", exc)
                told.add(str(exc))
            pause_s = min(max(2 * pause_s if is_away else 0.0, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            is_away = True
            continue
        if is_away:
            log.warning("the store of [cluster] is there again")
        is_away = False
        told.clear()
        pause_s = max(interval_s, size / _MOST_BYTES_A_SECOND) * rng.uniform(1 - _JITTER, 1 + _JITTER)
    try:
        sharing.leave()
    except StoreError as exc:
        log.warning("the other balancers could not be told that this one ends: %s", exc)


def _section(segment: Segment) -> ClusterConfig | None:
    _, data = published(segment)
    return decode_published(data)[0].cluster if data else None


def _own_name(segment: Segment) -> str:
    """The host's name and the pid of the master that made the segment, which both stay for as long as the instance runs."""
    pid = segment.name.rsplit("-", 2)[-2]
    return f"{socket.gethostname()}:{pid}"
