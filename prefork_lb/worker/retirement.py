"""What gunicorn's master and one of its workers tell each other about the worker's end.

SIGTERM alone does not say whether the instance stops or the worker is replaced. The two ends differ: a stop gives
exchanges `graceful_timeout`, while a replaced worker may serve its long exchanges for hours. One byte of memory that
master and worker share says which one it is.
"""
from __future__ import annotations

import mmap
from enum import IntEnum


class Order(IntEnum):
    """What the worker is to do. An order is only ever replaced by a greater one."""

    UNWATCHED = 0  # gunicorn's master does not let workers linger: each one ends within `graceful_timeout`
    SERVE = 1
    RETIRE = 2  # replaced: the worker takes no new connections, and ends when those that it has have ended
    STOP = 3  # the instance stops: the worker ends within `graceful_timeout`


class Retirement:
    """The shared byte. The master makes it before the fork."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)  # anonymous and shared (mmap(2)): parent and child see the same

    @property
    def order(self) -> Order:
        """The present order."""
        return Order(self._byte[0])

    def give(self, order: Order) -> None:
        """Give this order, unless the present one is greater."""
        if order > self._byte[0]:
            self._byte[0] = order
