"""File descriptors: how many clients they allow, how a shortage is noticed, and what a worker does about it.

A proxied client takes two: its own connection and one to a server. The kernel gives a new descriptor the lowest free number
(open(2)), so the number of a connection that was just accepted tells how many are in use, without a system call.

Idle connections to servers are the only descriptors that a worker can do without. They are closed first.
"""
from __future__ import annotations

import errno
import resource
from collections.abc import Callable

from prefork_lb.clock import Clock, monotonic

OWN = 64
"""Descriptors that a worker needs for itself: modules, logs, epoll, pipes, shared memory, the resolver."""

_A_CLIENT = 2
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# Kept free: a worker that is short still answers 503, and a running request may need a file for its body or a bell in a queue.
_LAST = 24
_A_MOMENT_S = 0.05


def most_clients(limit: int) -> int:
    """The most client connections that a worker with `limit` descriptors should have."""
    return max(16, (limit - OWN) // _A_CLIENT)


def is_out_of_descriptors(exc: OSError) -> bool:
    """Whether this process, or the whole host, has no descriptor left, or no memory for one more socket.

    This is a shortage of this host, never the failure of a server.
    """
    return exc.errno in _SHORTAGES


def descriptor_limit() -> int:
    """The descriptors that this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Descriptors:
    """The descriptors of one worker."""

    def __init__(self, free_idle: Callable[[], int], clock: Clock = monotonic) -> None:
        """`free_idle` closes idle connections to servers, and returns how many. It may close them a moment later."""
        self._free_idle = free_idle
        self._clock = clock
        self._first_of_last = descriptor_limit() - _LAST
        self._freed_at = -_A_MOMENT_S

    def are_short(self, newest: int) -> bool:
        """Whether few descriptors are left and none can be freed. `newest` is the last one that was opened."""
        return newest >= self._first_of_last and not self.free()

    def free(self) -> bool:
        """Close idle connections to servers. True if some were closed now or a moment ago, so that descriptors become free."""
        now = self._clock()
        if self._free_idle():
            self._freed_at = now
        return now - self._freed_at < _A_MOMENT_S
