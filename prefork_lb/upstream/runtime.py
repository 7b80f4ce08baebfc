"""What a worker's pools and exchanges need of the kind of worker they run in."""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from prefork_lb.net.background import Aside, in_a_thread
from prefork_lb.net.dial import Dial, SocketDialer
from prefork_lb.net.sockets import SocketStream, wait_any
from prefork_lb.net.stream import WaitAny
from prefork_lb.upstream.housekeeping import Housekeeping
from prefork_lb.upstream.queue import MakeStream

Compute = Callable[[Callable[[], bool]], bool]
"""Runs a function that computes for long, so that other requests go on meanwhile; few at a time."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a worker connects to servers, waits, and repeats a task beside its requests."""

    dial: Dial
    every: Callable[[float, Callable[[], None]], None]  # interval in seconds, task
    one_thread: bool  # exchanges and tasks run in the same thread
    stream: MakeStream  # makes the stream by which a worker waits for a socket
    wait_any: WaitAny
    compute: Compute
    sleep: Callable[[float], None] = time.sleep  # seconds
    aside: Aside = in_a_thread


def _in_a_thread(interval_s: float, task: Callable[[], None]) -> None:
    Housekeeping(task, interval_s).start()


_few = threading.BoundedSemaphore(2)  # beside these, threads that serve requests want the processor, too


def _in_this_thread(function: Callable[[], bool]) -> bool:
    """A thread has one request, and others go on. gevent's greenlets share one, so there it is one of gevent's pool."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return bool(sys.modules["gevent"].get_hub().threadpool.apply(function))
    with _few:
        return function()


BLOCKING = Runtime(SocketDialer().dial, _in_a_thread, one_thread=False, stream=SocketStream, wait_any=wait_any,
                   compute=_in_this_thread)
"""Ordinary sockets and threads; gevent's, where it has patched them."""
