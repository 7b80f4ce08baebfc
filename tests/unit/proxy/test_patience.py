"""How long a client may keep one waiting for its body."""

from __future__ import annotations

import pytest

from prefork_lb.proxy.patience import NO_LIMIT, Patience


def test_each_so_many_bytes_give_one_second_more() -> None:
    patience = Patience(20.0, 500)
    patience.waited(5.0, 1000)
    assert patience.left_s == pytest.approx(17.0)


@pytest.mark.parametrize(("size", "pause_s", "lasts"), [(1, 2.0, 10), (400, 1.0, 100), (500, 1.0, None), (1, 30.0, 1)])
def test_a_client_that_is_too_slow_comes_to_its_end_and_a_faster_one_does_not(
    size: int, pause_s: float, lasts: int | None
) -> None:
    patience, reads = Patience(20.0, 500), 0
    while patience.left_s > 0 and reads < 1000:
        patience.waited(pause_s, size)
        reads += 1
    assert reads in ((lasts, lasts + 1) if lasts else (1000,))


def test_without_a_limit_there_is_none() -> None:
    patience = Patience(0.0, 500)
    patience.waited(1e9, 0)
    assert patience.left_s == NO_LIMIT
