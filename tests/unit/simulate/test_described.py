"""Loads, servers and troubles in words."""
from __future__ import annotations

import random
import statistics

import pytest

from prefork_lb.simulate.load import DescribedLoad
from prefork_lb.simulate.servers import DescribedServer, Trouble, check_troubles, parse_server, parse_trouble
from prefork_lb.simulate.service_times import parse_seconds, parse_service_times


@pytest.mark.parametrize(("text", "seconds"), [
    ("30ms", 0.03), ("1.5s", 1.5), ("0.03", 0.03), (".5", 0.5), ("2m", 120), ("7us", 7e-6)])
def test_times_have_units(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ms", "-1s", "1 s", "1e3", "inf", "nan", "9999999h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["constant:30ms", "exponential:30ms", "lognormal:30ms", "lognormal:30ms,0.5", "pareto:30ms,3.5"])
def test_every_distribution_has_the_mean_that_it_was_given(text: str) -> None:
    service, rng = parse_service_times(text), random.Random(7)
    assert service.mean_s == 0.03
    assert statistics.fmean(service.draw(rng) for _ in range(50_000)) == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize("text", ["", "constant", "uniform:3ms", "constant:0", "constant:25h", "constant:3ms,1", "pareto:3ms,1",
                                  "pareto:3ms,x", "lognormal:3ms,-1", "lognormal:3ms,nan"])
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)[1:-1] or "expected"):
        parse_service_times(text)


def test_a_server_has_options() -> None:
    assert parse_server("a weight=2 workers=4 max_connections=20 backup", 8) == DescribedServer("a", 2, 4, 20, True)
    assert parse_server("b", 8) == DescribedServer("b", workers=8)


@pytest.mark.parametrize("text", ["", "a weight=0", "a weight=x", "a speed=2", "a workers=-1"])
def test_a_wrong_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="server"):
        parse_server(text, 8)


@pytest.mark.parametrize(("text", "trouble"), [
    ("b slow 10 from 5s to 20s", Trouble("b", 5, 20, 10.0)), ("b slow x2.5 from 0 to 1m", Trouble("b", 0, 60, 2.5)),
    ("b fail from 5s to 6s", Trouble("b", 5, 6, fails_in_s=0.001)),
    ("b fail in 0 from 5s", Trouble("b", 5, float("inf"), fails_in_s=0)),
    ("b stall from 5s to 6s", Trouble("b", 5, 6, stalls=True))])
def test_troubles_in_words(text: str, trouble: Trouble) -> None:
    assert parse_trouble(text, ["a", "b"]) == trouble


@pytest.mark.parametrize("text", ["b", "c fail from 1s", "b slow from 1s", "b slow 0 from 1s", "b slow x from 1s",
                                  "b slow nan from 1s", "b fail from 2s to 1s",
                                  "b stall from 1s", "b slow 2 from now"])
def test_wrong_troubles_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_trouble(text, ["a", "b"])


def test_troubles_of_one_server_may_not_overlap() -> None:
    check_troubles([Trouble("a", 1, 3), Trouble("a", 3, 4), Trouble("b", 2, 3)])
    with pytest.raises(ValueError, match="server a"):
        check_troubles([Trouble("a", 1, 3), Trouble("a", 2, 4)])


def test_a_described_load_has_its_rate_and_is_the_same_for_the_same_seed() -> None:
    load = DescribedLoad(100, parse_service_times("exponential:30ms"), 20_000)
    drawn = load.draw(3)
    assert drawn.arrivals[-1] == pytest.approx(200, rel=0.03)
    assert drawn == load.draw(3) and drawn.services != load.draw(4).services
    assert len(set(drawn.clients)) > 500
