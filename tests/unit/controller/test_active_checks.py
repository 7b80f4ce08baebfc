"""From the configuration to checks, and from checks to shared memory, over real sockets."""
from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from prefork_lb.config.published import decode_published
from prefork_lb.controller.active_checks import ActiveChecks
from prefork_lb.controller.probe import CheckOutcome
from prefork_lb.controller.schedule import CheckSchedule
from prefork_lb.controller.streak import CheckState
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check
from tests.support.place import HOST
from tests.support.waiting import wait_until


class Checking:
    """A controller's checks of one server, which accepts connections, and the workers' ledger."""

    def __init__(self, segment: Segment, address: str) -> None:
        self.segment, self.address = segment, address
        self.ledger, self.states = Ledger(segment), States(segment)
        self.slot = self.register(address)
        self.checks = ActiveChecks(segment, Ledger(segment, takes_row=False), self.states)
        pool = {"servers": [{"address": address}], "health": {"type": "tcp", "interval": 0.1, "start": "checking"}}
        self.checks.use(decode_published(json.dumps({"pools": {"web": pool}}).encode())[0])

    def register(self, address: str) -> int:
        return register(self.segment, self.ledger, [PoolEntry("web", [ServerEntry(address, 1, 0, False)])])["web"].slots[0]


@pytest.fixture
def checking(segment: Segment) -> Iterator[Checking]:
    with socket.create_server((HOST, 0)) as server:
        found = Checking(segment, f"{HOST}:{server.getsockname()[1]}")
        yield found
        found.checks.close()


def test_a_look_that_fails_is_made_again(checking: Checking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else may change for days, and the servers would not be checked."""
    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(CheckSchedule, "set_targets", fail)
    with pytest.raises(OSError, match="no"):
        checking.checks.look()
    monkeypatch.undo()
    checking.checks.look()
    wait_until(lambda: checking.states.check[checking.slot] == Check.UP, "the server is checked", 20)


def test_a_result_is_not_filed_for_the_server_that_has_the_slot_by_now(checking: Checking) -> None:
    """Between two looks the table freed the slot and gave it to another server, which may have no checks at all."""
    checking.checks.look()
    wait_until(lambda: checking.states.check[checking.slot] == Check.UP, "the server is checked", 20)
    layout = checking.segment.layout
    checking.segment.cells[layout.row(checking.ledger.row) + at.R_GENERATION] = checking.ledger.generation + 1
    assert checking.register("10.0.0.9:80") == checking.slot
    checking.checks._report(("web", checking.address), CheckState.DOWN, CheckOutcome(False, "refused", 0.0))
    assert checking.states.check[checking.slot] == Check.NONE


def test_a_server_that_another_balancer_checks_is_left_to_it_until_that_falls_silent(checking: Checking) -> None:
    checking.states.checked_elsewhere[checking.slot] = now_ms() + 60_000
    checking.states.set_check(checking.slot, Check.DOWN, "another says so")
    targets: list[int] = []
    original = CheckSchedule.set_targets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckSchedule, "set_targets", lambda self, found: (targets.append(len(found)), original(self, found)))
        checking.checks.look()
        checking.checks.look()
        checking.states.checked_elsewhere[checking.slot] = 0
        checking.checks.look()
    assert targets == [1]
    wait_until(lambda: checking.states.check[checking.slot] == Check.UP, "it is checked here", 20)
