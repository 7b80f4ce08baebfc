"""What gunicorn's master is taught. tests/integration/test_lingering_workers.py has the real one."""
from __future__ import annotations

import os

from gunicorn.arbiter import Arbiter

from prefork_lb.gunicorn.master import let_workers_linger
from prefork_lb.worker.retirement import Order, Retirement


def test_a_master_that_is_none_of_gunicorns_is_left_alone() -> None:
    class Other(Arbiter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.reexec_pid = self.master_pid = 0

    server = Other()
    assert "Other" in let_workers_linger(server, list)
    assert type(server) is Other


def test_a_master_without_what_is_relied_on_is_left_alone() -> None:
    server = Arbiter.__new__(Arbiter)
    assert "reexec_pid" in let_workers_linger(server, list)
    assert type(server) is Arbiter


def test_an_order_reaches_the_other_process_and_is_never_taken_back() -> None:
    retirement = Retirement()
    assert retirement.order is Order.UNWATCHED
    child = os.fork()
    if not child:
        retirement.give(Order.STOP)
        os._exit(0)
    os.waitpid(child, 0)
    assert retirement.order is Order.STOP
    retirement.give(Order.RETIRE)
    assert retirement.order is Order.STOP
