"""The metrics as lines for StatsD."""
from __future__ import annotations

from dataclasses import replace

from prefork_lb.observe.statsd import StatsD
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.statistics import Tally
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import view
from tests.unit.shared.processes import Master


def test_counters_are_what_they_have_grown_by_and_gauges_are_as_they_are(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(4, 4, 2, statistics=1))
    ledger = Ledger(segment)
    web = [ServerEntry("10.0.0.1:80", 2, 7, False), ServerEntry("unix:/run/b.sock", 1, 0, True)]
    register(segment, ledger, [PoolEntry("web", web)])
    tally, statsd = Tally(segment, ledger.row, one_thread=True), StatsD("site.lb")
    tally.count_answer(0, 0, 200, 5, 7, 0.004)

    def lines() -> list[str]:
        return statsd.lines(view(segment))

    first = lines()
    assert "site.lb.server_weight.web.10_0_0_1_80:2|g" in first and "site.lb.server_up.web.unix__run_b_sock:1|g" in first
    assert not any(line.endswith("|c") or "percent" in line or "build_info" in line for line in first)
    for _ in range(3):
        tally.count_answer(0, 0, 200, 0, 1000, 0.0015)
    tally.count_own(0, 503, 0.0005)
    with ledger.locked():
        ledger.claim(1)
    second = set(lines())
    assert {line for line in second if line.endswith("|c") and "bytes" not in line} == {
        "site.lb.requests.web.10_0_0_1_80.2xx:3|c", "site.lb.requests.web.-.5xx:1|c", "site.lb.own_answers.web.503:1|c",
        "site.lb.answer_seconds.web.10_0_0_1_80:0.004500|c", "site.lb.request_seconds_count.web:4|c",
        "site.lb.request_seconds_sum.web:0.005000|c", "site.lb.attempts.web.unix__run_b_sock:1|c"}
    assert {"site.lb.bytes.web.10_0_0_1_80.out:3000|c", "site.lb.in_flight.web.unix__run_b_sock:1|g",
            "site.lb.request_p50_ms.web:1.333000|g"} <= second
    third = lines()
    assert not any(line.endswith("|c") or "_p50_" in line for line in third)


def test_a_counter_that_has_begun_anew_counts_from_0(segment: Segment) -> None:
    register(segment, Ledger(segment), [PoolEntry("web", [ServerEntry("a:1", 1, 0, False)])])
    seen, statsd = view(segment), StatsD("p")

    def attempts(number: int) -> list[str]:
        now = replace(seen, servers=[replace(seen.servers[0], requests=number)])
        return [line for line in statsd.lines(now) if "attempts" in line]

    assert [attempts(number) for number in (10, 3, 3, 4)] == [[], ["p.attempts.web.a_1:3|c"], [], ["p.attempts.web.a_1:1|c"]]
    assert [line for line in statsd.lines(replace(seen, servers=[])) if "attempts" in line] == []
    assert attempts(2) == ["p.attempts.web.a_1:2|c"]  # the server is back, from 0
