"""The metrics of an instance: they say what its shared memory says, in both formats, and the documentation has them all."""
from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest as generate_plain
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import Collector

from prefork_lb.observe import metrics
from prefork_lb.observe.metric_table import CONDITIONS, FAMILIES, PREFIX
from prefork_lb.observe.metrics import exposition, prepare
from prefork_lb.shared.discovered import Discovered, DiscoveryState, write_discovered
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.statistics import Tally
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from tests.unit.shared.processes import Master

OPEN = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"
DOCS = Path(__file__).parents[3] / "docs"
WEB = PoolEntry("web", [ServerEntry("10.0.0.1:80", 2, 7, False), ServerEntry("unix:/run/b.sock", 1, 0, True)])

SESSIONS = {("web", "10.0.0.1:80"): 12}
SPLIT_WEIGHTS = {("3", "web"): 20}

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    remove_segment(made.pid)
    made.kill()


@pytest.fixture
def segment(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(8, 8, 4, statistics=1))


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    """Of the one worker; its pool is number 0, its servers are in the slots 0 and 1."""
    ledger = Ledger(segment)
    register(segment, ledger, [WEB])
    return ledger


def scraped(segment: Segment, accept: str = "") -> Numbers:
    content_type, text = exposition(segment, accept, SESSIONS, SPLIT_WEIGHTS)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    families = (parse_open if accept else parse_plain)(text.decode())
    found = [(sample.name, frozenset(sample.labels.items()), sample.value) for family in families for sample in family.samples]
    numbers = {(name, labels): value for name, labels, value in found}
    assert len(numbers) == len(found)
    return numbers


def number(numbers: Numbers, name: str, **labels: str) -> float:
    return numbers[PREFIX + name, frozenset(labels.items())]


@pytest.mark.parametrize("accept", ["", OPEN], ids=["text", "openmetrics"])
def test_they_say_what_was_counted(segment: Segment, ledger: Ledger, accept: str) -> None:
    tally = Tally(segment, ledger.row, True)
    for status in (200, 200, 404):
        tally.count_answer(0, 0, status, 10, 1000, 0.004)
    tally.count_answer(1, 0, 500, 0, 7, 3.0)
    tally.count_own(0, 503, 0.0002)
    tally.count_own(0, 499, 0.0002)
    tally.count_without_pool(400)
    tally.count_shed()
    ledger.note_clients(5)
    ledger.note_lag(0.25)
    with ledger.locked():
        ledger.claim(1)
    seen = scraped(segment, accept)
    assert number(seen, "requests_total", pool="web", server="10.0.0.1:80", code="2xx") == 2
    assert number(seen, "requests_total", pool="web", server="unix:/run/b.sock", code="5xx") == 1
    assert number(seen, "requests_total", pool="web", server="", code="5xx") == 1
    assert number(seen, "requests_total", pool="web", server="", code="499") == 1
    assert number(seen, "requests_total", pool="", server="", code="4xx") == 1
    assert number(seen, "own_answers_total", pool="web", status="503") == 1
    assert number(seen, "bytes_total", pool="web", server="10.0.0.1:80", direction="out") == 3000
    assert number(seen, "bytes_total", pool="web", server="10.0.0.1:80", direction="in") == 30
    assert number(seen, "request_seconds_bucket", pool="web", le="0.001") == 2
    assert number(seen, "request_seconds_bucket", pool="web", le="0.005") == 5
    assert number(seen, "request_seconds_bucket", pool="web", le="+Inf") == number(seen, "request_seconds_count", pool="web") == 6
    assert number(seen, "request_seconds_sum", pool="web") == pytest.approx(3.0124)
    assert number(seen, "in_flight", pool="web", server="unix:/run/b.sock") == 1
    assert number(seen, "server_weight", pool="web", server="10.0.0.1:80") == 2
    assert number(seen, "sessions", pool="web", server="10.0.0.1:80") == 12
    assert not any(name == f"{PREFIX}sessions" and ("server", "unix:/run/b.sock") in labels for name, labels in seen)
    assert number(seen, "split_weight", route="3", pool="web") == 20
    assert number(seen, "client_connections") == 5
    assert number(seen, "loop_lag_seconds") == 0.25
    assert number(seen, "shed_total") == 1


def test_requests_of_a_pool_are_as_many_as_its_times(segment: Segment, ledger: Ledger) -> None:
    tally = Tally(segment, ledger.row, True)
    for n in range(20):
        tally.count_answer(n % 2, 0, 100 * (1 + n % 5), 0, 0, n / 10)
        tally.count_own(0, (404, 499, 500, 502, 503, 504)[n % 6], n / 10)
    seen = scraped(segment)
    requests = sum(value for (name, labels), value in seen.items()
                   if name == f"{PREFIX}requests_total" and ("pool", "web") in labels)
    assert requests == number(seen, "request_seconds_count", pool="web") == 40


def test_the_state_of_a_server_is_one_of_all(segment: Segment, ledger: Ledger) -> None:
    states = States(segment)
    with ledger.locked():
        states.set_admin(0, Admin.DRAIN)
    for address, expected, up in (("10.0.0.1:80", "draining", 0), ("unix:/run/b.sock", "ready", 1)):
        seen = scraped(segment)
        found = {word: number(seen, "server_state", pool="web", server=address, state=word) for word in CONDITIONS}
        assert found == {word: float(word == expected) for word in CONDITIONS}
        assert number(seen, "server_up", pool="web", server=address) == up


def test_the_discovery_of_a_pool_is_told(segment: Segment, ledger: Ledger) -> None:
    assert not any(name == f"{PREFIX}discovery_up" for name, _ in scraped(segment, ""))
    for state, up in ((DiscoveryState.GOOD, 1.0), (DiscoveryState.FAILING, 0.0)):
        with ledger.locked():
            write_discovered(segment, 0, Discovered(state, 1000.0, 7, ""))
        seen = scraped(segment, "")
        assert (number(seen, "discovery_up", pool="web"), number(seen, "discovery_servers", pool="web")) == (up, 7.0)


@pytest.mark.parametrize("accept", ["", OPEN], ids=["text", "openmetrics"])
def test_a_later_scrape_says_what_is_new(segment: Segment, ledger: Ledger, accept: str) -> None:
    """Most of the text is kept from one scrape to the next."""
    tally = Tally(segment, ledger.row, True)
    first = scraped(segment, accept)
    assert scraped(segment, accept) == first
    tally.count_answer(0, 0, 200, 0, 12_345_678_901, 0.1)
    second = scraped(segment, accept)
    assert first.keys() == second.keys()
    assert number(second, "requests_total", pool="web", server="10.0.0.1:80", code="2xx") == 1
    assert number(second, "bytes_total", pool="web", server="10.0.0.1:80", direction="out") == 12_345_678_901
    register(segment, ledger, [WEB, PoolEntry('od"d\\', [ServerEntry("c:1", 1, 0, False)])])
    third = scraped(segment, accept)
    assert number(third, "in_flight", pool='od"d\\', server="c:1") == 0
    register(segment, ledger, [WEB])
    assert not any(("server", "c:1") in labels for _, labels in scraped(segment, accept))


@pytest.mark.parametrize("accept", ["", OPEN], ids=["text", "openmetrics"])
def test_the_library_is_asked_for_new_lines_alone(segment: Segment, ledger: Ledger, accept: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 8 microseconds for a line; the first scraper must not wait for it, either."""
    prepare(segment)
    asked: list[str] = []

    def spy(registry: Collector) -> bytes:
        asked.extend(sample.name for metric in registry.collect() for sample in metric.samples)
        return (generate_open if accept else generate_plain)(registry)

    monkeypatch.setattr(metrics, "generate_latest", spy)
    monkeypatch.setattr(metrics.openmetrics, "generate_latest", spy)
    before = scraped(segment, accept)
    assert asked == [f"{PREFIX}sessions", f"{PREFIX}split_weight"]  # which are those of the scrape
    register(segment, ledger, [PoolEntry("web", [*WEB.servers, ServerEntry("c:1", 1, 0, False)])])
    after = scraped(segment, accept)
    assert before.keys() < after.keys() and len(asked) - 2 == len(after.keys() - before.keys())


def test_an_instance_without_statistics_tells_the_rest(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(8, 8, 8))
    register(segment, Ledger(segment), [WEB])
    seen = scraped(segment)
    assert number(seen, "in_flight", pool="web", server="10.0.0.1:80") == 0
    assert not any(name.startswith((f"{PREFIX}requests", f"{PREFIX}request_seconds", f"{PREFIX}shed")) for name, _ in seen)


def test_the_page_of_metrics_has_each_as_it_is() -> None:
    rows = re.findall(r"^\| `(prefork_lb_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert rows == [(PREFIX + family.name, family.kind, ", ".join(f"`{label}`" for label in family.labels), family.help)
                    for family in FAMILIES]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
def test_promtool_has_nothing_to_say(segment: Segment, ledger: Ledger) -> None:
    _, text = exposition(segment, "", SESSIONS)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
