"""Access logs of several kinds, and what is no line of one."""
from __future__ import annotations

import pytest

from prefork_lb.simulate.access_log import LogError, ReadLog, read_log
from prefork_lb.simulate.service_times import parse_service_times

COMBINED = b'192.0.2.7 - - [25/Nov/2026:13:00:01 +0100] "GET /a?b=1 HTTP/1.1" 200 12 "-" "curl/8 \\"x\\""'
BASE = 1795608001.0  # that moment


def one(line: bytes) -> tuple[float, float | None, str, bytes]:
    log = read_log([line])
    assert log.bad == 0, line
    return log.times[0], log.durations[0] if log.durations else None, log.clients[0], log.targets[0]


@pytest.mark.parametrize(("more", "seconds"), [
    (b"", None), (b" 0.250", 0.25), (b" 250000", 0.25), (b" rt=0.250 uct=0.001", 0.25), (b' "0.250"', 0.25), (b" -", None)])
def test_a_combined_line_may_tell_how_long_the_request_took(more: bytes, seconds: float | None) -> None:
    assert one(COMBINED + more + b"\n") == (BASE, seconds, "192.0.2.7", b"/a?b=1")


def test_the_common_format_and_a_request_that_was_none() -> None:
    assert one(b'::1 - some body [25/Nov/2026:12:00:01 +0000] "-" 400 -') == (BASE, None, "::1", b"/")


@pytest.mark.parametrize("line", [
    b'{"time": "2026-11-25T12:00:01Z", "seconds": 0.25, "client": "192.0.2.7", "target": "/a?b=1"}',
    b'{"ts": 1795608001, "duration": 0.25, "request": {"remote_ip": "192.0.2.7", "uri": "/a?b=1"}}',
    b'{"time_iso8601": "2026-11-25T13:00:01+01:00", "request_time": "0.250", "remote_addr": "192.0.2.7", '
    b'"request_uri": "/a?b=1"}',
    b'{"time": "[25/Nov/2026:12:00:01 +0000]", "duration_us": 250000, "client": "192.0.2.7", "path": "/a?b=1"}',
    b'{"msec": "1795608001.0", "duration_ms": 250, "client_ip": "192.0.2.7", "target": "/a?b=1"}',
])
def test_json_of_several_programs(line: bytes) -> None:
    assert one(line) == (BASE, 0.25, "192.0.2.7", b"/a?b=1")


@pytest.mark.parametrize("line", [
    b"hello", b"{", b"[]", b'{"seconds": 1}', b'{"time": "yesterday"}', b'{"time": null}',
    b'{"time": "2026-11-25", "seconds": "x"}',
    b'{"time": 1, "seconds": -1}', b'{"time": 1, "seconds": 1e9}', b'{"time": [1]}', b"\xff\x00\xfe", COMBINED[:40],
    COMBINED.replace(b"Nov", b"Foo"), b'{"time": 1e400, "seconds": 1}', b'{"time": NaN}',
    b'{"time": "' + b"9" * 400 + b'", "seconds": 1}'])
def test_what_is_no_line_is_counted_with_its_number(line: bytes) -> None:
    log = read_log([COMBINED, b"\n", line, COMBINED])
    assert (len(log.times), log.bad, log.first_bad) == (2, 1, [3])
    assert log.notice == "1 line is no line of an access log and left out: 3"


def test_only_the_first_numbers_of_bad_lines_are_told() -> None:
    assert read_log([b"x"] * 9).notice == "9 lines are no line of an access log and left out: 1, 2, 3, 4, 5, ..."


@pytest.mark.parametrize(("log", "message"), [
    (read_log([]), "the log is empty"), (read_log([b"x"]), "no line of an access log among 1 lines"),
    (read_log([COMBINED]), "does not tell how long"), (read_log([COMBINED, COMBINED + b" 5"]), "1 of its lines do not tell")])
def test_a_log_that_cannot_be_replayed_says_why(log: ReadLog, message: str) -> None:
    with pytest.raises(LogError, match=message):
        log.load(None)


def test_requests_come_when_they_ended_less_what_they_took() -> None:
    lines = [b'{"time": %d.5, "seconds": %d.25, "client": "%d"}' % (1000 + number, number, number) for number in (3, 2, 5)]
    drawn = read_log(lines).load(None).draw(1)
    # They came at 1000.25, 1000.25 and 1000.25: those that came at once keep their order.
    assert list(drawn.arrivals) == [0.0, 0.0, 0.0]
    assert drawn.clients == ["3", "2", "5"] and list(drawn.services) == [3.25, 2.25, 5.25]


def test_requests_of_whole_seconds_are_spread_over_them() -> None:
    load = read_log([COMBINED] * 1000).load(parse_service_times("constant:1ms"))
    drawn = load.draw(1)
    assert 0.9 < max(drawn.arrivals) < 1.0 and list(drawn.arrivals) == sorted(drawn.arrivals) and load.rate == 1000
    assert list(load.draw(1).arrivals) == list(drawn.arrivals) != list(load.draw(2).arrivals)


def test_a_log_may_go_by_faster() -> None:
    lines = [b'{"time": %d.5, "seconds": 0.5}' % number for number in range(11)]
    assert max(read_log(lines).load(None, 4).draw(1).arrivals) == 2.5
