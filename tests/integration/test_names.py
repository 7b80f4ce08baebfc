"""Servers that are names: addresses that drop packets, and a resolver that hangs, on every worker class."""
from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.answering import answering
from tests.support.balancer import FRONT_ENDS, FrontEnd, pool_text
from tests.support.client import fetch
from tests.support.names import Names
from tests.support.ports import silent_address
from tests.support.rig import Rig
from tests.support.waiting import wait_until

# To connect; what a request takes is compared with it, not with the machine's speed. Longer than clients wait.
TIMEOUT_S = 60.0
CONFIG = f"[proxy.timeouts]\nconnect = {TIMEOUT_S}\n"


@pytest.fixture(params=FRONT_ENDS, ids=str)
def kind(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    names = Names(tmp_path / "names")
    yield names
    names.answer()


@pytest.fixture
def port() -> Iterator[int]:
    """At 127.0.0.1 this port drops packets, at 127.0.0.2 a server answers and closes."""
    with silent_address() as silent:
        port = int(silent.rpartition(":")[2])
        with answering(host="127.0.0.2", port=port):
            yield port


def test_a_dead_address_and_a_resolver_that_hangs_cost_next_to_nothing(
        rig: Rig, kind: FrontEnd, names: Names, port: int) -> None:
    names.set("app.test", ["127.0.0.1", "127.0.0.2"])
    balancer = rig.balancer(CONFIG + pool_text([f"app.test:{port}"]), kind, workers=1, environ=names.environ)

    def is_served() -> bool:
        """Where the address that drops packets, or the look-up, took all the time, it is not."""
        return fetch(balancer.address).status == 200

    assert is_served(), balancer.log()
    before = len(names.asked())
    names.hang()
    wait_until(lambda: is_served() and len(names.asked()) > before, "a look-up that hangs", every=0.2)
    began = time.monotonic()
    assert all(is_served() for _ in range(20)), "the known addresses were not in use at once"
    assert time.monotonic() - began < TIMEOUT_S, "the known addresses were not in use at once"
    assert len(names.asked()) == before + 1, "one look-up at a time"
    worker, = balancer.workers()
    assert len(processes.threads(worker)) < kind.threads + 20, "threads pile up"
    assert " is ejected" not in balancer.log()
    assert balancer.stop(signal.SIGTERM) == 0, "the worker's end waited for the look-up"


def test_a_name_that_never_resolves_holds_no_other_server_up(rig: Rig, kind: FrontEnd, names: Names, port: int) -> None:
    """The resolver hangs from the start on: requests go on to the server that is known by its address."""
    names.hang()
    pool = pool_text([f"app.test:{port}", f"127.0.0.2:{port}"], "round-robin")
    balancer = rig.balancer("[proxy.timeouts]\nconnect = 0.3\n" + pool, kind, workers=1, environ=names.environ)
    assert [fetch(balancer.address).status for _ in range(10)] == [200] * 10, balancer.log()
    assert "the resolver did not answer within 0.3 s" in balancer.log()
