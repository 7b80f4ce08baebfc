"""What lies where in the segment: every worker has lines of the processor's cache to itself."""
from __future__ import annotations

import pytest

from prefork_lb.shared.layout import LINE_CELLS
from prefork_lb.shared.offsets import Layout


@pytest.mark.parametrize("own_lines", [0, 1])
@pytest.mark.parametrize("answer_times", [0, 1])
@pytest.mark.parametrize(("servers", "pools"), [(1, 1), (3, 2), (64, 5), (257, 49)])
def test_rows_and_statistics_of_two_workers_share_no_line(servers: int, pools: int, answer_times: int, own_lines: int) -> None:
    layout = Layout(5, servers, pools, own_lines=own_lines, answer_times=answer_times, statistics=1)
    assert layout.row(0) >= layout.pool(pools)
    for number in range(layout.rows):
        last = layout.row_array(number, 8).stop  # A_BELL, the last array
        assert layout.row(number) % LINE_CELLS == 0 and last <= layout.row(number + 1)
        block = layout.statistics_block(number)
        assert block.start % LINE_CELLS == 0 and block.stop <= layout.statistics_block(number + 1).start
    assert layout.statistics_block(0).start >= layout.own_line_array(layout.rows if own_lines else 0, 0).start
