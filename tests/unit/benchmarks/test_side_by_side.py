"""The parts of the side-by-side benchmark that need no load."""
from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.handshakes import read_s_time
from benchmarks.picture import bars
from benchmarks.side_by_side import cpu_s, in_ms, medians, process_tree, pss_bytes, read_wrk

WRK = """Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%    1.16ms
     75%    1.50ms
     99%  950.00us
  93028 requests in 2.00s, 13.31MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:  46514.25
"""


def test_what_wrk_prints_is_read() -> None:
    expected = {"requests": 93028.0, "rate": 46514.25, "p50_ms": 1.16, "p99_ms": 0.95, "errors": 17.0}
    assert read_wrk(WRK) == pytest.approx(expected)


def test_without_errors_there_are_none() -> None:
    quiet = "\n".join(line for line in WRK.splitlines() if "errors" not in line and "Non-2xx" not in line)
    assert read_wrk(quiet)["errors"] == 0.0


@pytest.mark.parametrize("text", ["", WRK.replace("50%", "51%"), WRK.replace("Requests/sec", "Rate")])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not what wrk prints"):
        read_wrk(text)


def test_what_openssl_prints_of_handshakes_is_read() -> None:
    shown = "starting\nrr*r\n\n4 connections in 0.1s; 40.0 connections/user sec\n4 connections in 3 real seconds, 9 bytes"
    assert read_s_time([shown, shown]) == (8, 0.75)
    with pytest.raises(ValueError, match="not what openssl"):
        read_s_time([shown, "Unable to get connection"])


@pytest.mark.parametrize(("text", "ms"), [("250.00us", 0.25), ("1.5ms", 1.5), ("2.00s", 2000.0), ("1.00m", 60_000.0)])
def test_times(text: str, ms: float) -> None:
    assert in_ms(text) == ms


def test_ratios_are_those_of_the_rounds() -> None:
    """A machine that is half as fast in one round halves both: the ratio stays."""
    nginx, own = (100.0, 50.0, 80.0), (80.0, 40.0, 60.0)
    found = medians({"nginx": [{"rate": rate} for rate in nginx], "prefork_lb": [{"rate": rate} for rate in own]})
    assert found["nginx"] == {"rate": 80.0, "against_nginx": 1.0}
    assert found["prefork_lb"] == {"rate": 60.0, "against_nginx": 0.8}


def test_processes_are_measured_with_their_children() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        tree = process_tree(os.getpid())
        assert os.getpid() in tree and child in tree
        assert pss_bytes(tree) > pss_bytes([child]) > 0
        assert cpu_s(tree) > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_picture_has_a_bar_for_every_figure() -> None:
    figures = {"small": {"nginx": 1.0, "prefork_lb": 0.8}, "bulk": {"prefork_lb": 2.1}}
    root = ElementTree.fromstring(bars("a <title>", figures, ["nginx", "prefork_lb"]))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{space}rect")]
    assert len(widths) == 3
    assert widths[2] / widths[1] == pytest.approx(2.1 / 0.8, rel=0.01)
    texts = [text.text for text in root.iter(f"{space}text")]
    assert texts[0] == "a <title>" and "2.10" in texts


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no figures"):
        bars("t", {}, [])
