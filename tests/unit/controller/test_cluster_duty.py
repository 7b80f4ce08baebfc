"""The controller's part of `[cluster]`: nobody goes by old tales because the process that shares hangs or is gone."""
from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.controller.cluster_duty import ClusterDuty
from prefork_lb.shared.balancers import Balancer, balancers, write_balancers
from prefork_lb.shared.elsewhere import Elsewhere
from prefork_lb.shared.events import EventKind, recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from tests.support.waiting import wait_until

SECTION = ClusterConfig(url="redis://127.0.0.1:1")


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    return Ledger(segment)


@pytest.fixture
def sharing(segment: Segment, ledger: Ledger) -> Iterator[ClusterDuty]:
    """Its process only waits, as one that hangs does."""
    found = ClusterDuty(segment, ledger, States(segment), "", (sys.executable, "-c", "import time; time.sleep(60)"))
    yield found
    found.close()


def tell(segment: Segment, ledger: Ledger) -> None:
    """Another balancer has told something, and then nothing more."""
    elsewhere = Elsewhere(segment, ledger, States(segment))
    elsewhere.set({0: 5})
    elsewhere.note_round(900)
    write_balancers(segment, [Balancer("a", True, 1, 1, 0, 0, False)])


def test_what_a_process_that_hangs_has_told_is_forgotten(
    sharing: ClusterDuty, segment: Segment, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    sharing.use(SECTION)
    tell(segment, ledger)
    sharing.look()
    assert ledger.penalties[0] == 5

    def is_forgotten() -> bool:
        sharing.look()
        return ledger.penalties[0] == 0

    wait_until(is_forgotten, "it is forgotten", 20)
    assert len(balancers(segment)) == 1  # this one, alone
    text = "goes on by itself: the process that shares has been silent for a second"
    assert caplog.messages == [f"this balancer {text}"]
    assert [event.text for event in recent(segment, 0, 100) if event.kind == EventKind.BALANCER_LEFT.value] == [f"a {text}"]


def test_without_the_section_nothing_is_left(sharing: ClusterDuty, segment: Segment, ledger: Ledger) -> None:
    sharing.use(SECTION)
    tell(segment, ledger)
    sharing.use(None)
    assert ledger.penalties[0] == 0 and balancers(segment) == []
