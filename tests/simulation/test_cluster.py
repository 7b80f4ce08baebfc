"""How near several balancers that share come to one ledger, on virtual time. Tables: docs/cluster.md."""
from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.simulation.balancers import Load, burst, lasting, steady
from tests.simulation.rates import EVEN, UNEVEN, let_through

SHORT = Load(400, 0.030, slots=4)
SEEDS = range(10)


def test_a_burst_is_level_within_200_ms() -> None:
    """Ten requests have come by then: of a difference of six that strangers do not see, one ledger leaves three."""
    sharing, strangers = ([burst(how, seed=seed) for seed in SEEDS] for how in ("sharing", "strangers"))
    assert max(early for early, _ in sharing) <= 3 and max(most for _, most in sharing) <= 4
    assert sum(early for early, _ in strangers) >= 5 * len(SEEDS)


def test_sharing_spoils_nothing_where_it_cannot_help() -> None:
    """Requests of 30 ms are over before the next report. Adding the others' counts as they are is far worse than nothing."""
    strangers, adding, sharing = (steady(how, 3, 4, SHORT, seconds=10) for how in ("strangers", "adding", "sharing"))
    assert sharing <= 1.1 * strangers
    assert adding >= 2 * strangers


def test_news_that_is_older_than_two_milliseconds_does_not_help_short_requests() -> None:
    """Were each claim and each end told by itself: three balancers are one ledger when it is known at once, and strangers soon.
    So no interval of reports can make requests of 30 ms level."""
    strangers = steady("strangers", 3, 4, SHORT, seconds=10)
    at_once, late = (steady("telling", 3, 4, SHORT, seconds=10, sent_s=sent_s) for sent_s in (0.0, 0.002))
    assert at_once <= 0.8 and late >= 0.95 * strangers


@pytest.mark.parametrize("parts", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("per_second", "burst"), [(50, 1), (50, 20), (1000, 20)])
def test_a_meter_of_all_uses_keeps_a_rate_and_wastes_none(per_second: int, burst: int, parts: Sequence[float]) -> None:
    strangers, meter = (let_through(way, per_second, burst, parts, 3) for way in ("strangers", "meter"))
    assert 0.95 <= meter <= 1.05 < strangers


@pytest.mark.parametrize(("count", "servers"), [(2, 100), (16, 100)])
def test_many_balancers_level_what_lasts(count: int, servers: int) -> None:
    _, left = lasting("sharing", count, servers)
    assert left <= 0.7 * lasting("strangers", count, servers)[1]
