"""`prefork-lb traffic`: requests from several concurrent clients, and which server answered them how fast."""
from __future__ import annotations

import json
import math
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import click
import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prefork_lb.cli.number import Number
from prefork_lb.cli.tables import print_table
from prefork_lb.errors import shown

SERVED_BY = "X-Served-By"  # the response field by which a server says its name
UNNAMED = "(unnamed)"
_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The outcome of one request. `seconds` is the time until the whole body came; `status` is 0 when `error` is set."""

    server: str
    status: int
    seconds: float
    error: str = ""

    @property
    def failed(self) -> bool:
        """No answer, or one that says 4xx or 5xx."""
        return bool(self.error) or self.status >= 400


@dataclass(frozen=True, slots=True)
class TimeSummary:
    """How long requests took, in milliseconds; percentiles by the nearest rank."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> TimeSummary:
        """Raises ValueError when there is nothing to measure."""
        ordered = sorted(1000 * each for each in seconds)
        if not ordered:
            raise ValueError("no request was answered")
        mean = math.fsum(ordered) / len(ordered)
        return cls(mean, percentile(ordered, 50), percentile(ordered, 95), ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank). `ordered` is not empty."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


class TrafficReport:
    """The answers of a run, in the order in which they came.

    `wall_s` is the time from the first request to the last answer, in seconds.
    """

    def __init__(self, answers: Sequence[RequestResult], wall_s: float) -> None:
        self.answers = answers
        self.wall_s = wall_s

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(answer.failed for answer in self.answers)

    @property
    def errors(self) -> Counter[str]:
        """Why requests had no answer, and how often."""
        return Counter(answer.error for answer in self.answers if answer.error)

    def by_server(self) -> Iterator[tuple[str, list[RequestResult]]]:
        """The answers of each server, by name."""
        groups: dict[str, list[RequestResult]] = {}
        for answer in self.answers:
            if not answer.error:
                groups.setdefault(answer.server, []).append(answer)
        yield from sorted(groups.items())

    def as_dict(self) -> dict[str, object]:
        """For `--json`: the table's numbers, times in milliseconds."""
        return {
            "requests": len(self.answers),
            "failed": self.failed,
            "seconds": round(self.wall_s, 3),
            "errors": dict(self.errors.most_common()),
            "servers": {name: _summary(answers) for name, answers in self.by_server()},
        }

    def table(self) -> Table:
        """For people: one row a server, and one for all when there are several."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("server")
        for title in ("requests", "share", "mean ms", "p50 ms", "p95 ms", "max ms"):
            table.add_column(title, justify="right")
        table.add_column("status codes")
        groups = list(self.by_server())
        answered = [answer for _, answers in groups for answer in answers]
        if len(groups) > 1:
            groups.append(("all", answered))
        for name, answers in groups:
            times = TimeSummary.of(answer.seconds for answer in answers)
            table.add_row(
                name, str(len(answers)), f"{len(answers) / len(answered):.1%}",
                *(f"{ms:.1f}" for ms in (times.mean_ms, times.p50_ms, times.p95_ms, times.max_ms)),
                ", ".join(f"{status} x {count}" for status, count in _statuses(answers)),
            )
        return table


def _statuses(answers: Iterable[RequestResult]) -> list[tuple[int, int]]:
    return sorted(Counter(answer.status for answer in answers).items())


def _summary(answers: Sequence[RequestResult]) -> dict[str, object]:
    times = TimeSummary.of(answer.seconds for answer in answers)
    return {
        "requests": len(answers),
        "mean_ms": round(times.mean_ms, 3),
        "p50_ms": round(times.p50_ms, 3),
        "p95_ms": round(times.p95_ms, 3),
        "max_ms": round(times.max_ms, 3),
        "statuses": {str(status): count for status, count in _statuses(answers)},
    }


def check_url(url: str) -> str:
    """The URL itself. Raises ValueError with what was found and what is expected."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as the library for requests will; its error there is none of its own
    except ValueError as exc:
        raise ValueError(f"{shown(url)}: {exc}") from exc
    if not good:
        raise ValueError(f"{shown(url)} is not a URL such as http://127.0.0.1:8000/")
    return url


def send_traffic(
    url: str,
    count: int,
    clients: int,
    *,
    timeout_s: float = 30.0,
    on_answer: Callable[[RequestResult], None] = lambda answer: None,
) -> TrafficReport:
    """Send `count` GET requests from `clients` threads, each with a connection of its own, and wait for all.

    `timeout_s` bounds the connect and each wait for bytes. `on_answer` is called in the calling thread. A
    KeyboardInterrupt ends the run early: the report then has the answers until then.
    """
    answers: list[RequestResult] = []
    arrived: queue.SimpleQueue[RequestResult | Exception] = queue.SimpleQueue()
    tickets = iter(range(count))
    handing_out, stop = threading.Lock(), threading.Event()

    def client() -> None:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment would be measured instead
            while not stop.is_set():
                with handing_out:
                    if next(tickets, None) is None:
                        return
                try:
                    arrived.put(_ask(session, url, timeout_s))
                except Exception as exc:  # handed to the calling thread, which would wait for this answer for ever
                    arrived.put(exc)
                    return

    start = time.perf_counter()
    try:
        # Daemons: after Ctrl-C nobody waits for a server that hangs.
        for number in range(min(clients, count)):
            threading.Thread(target=client, name=f"client {number}", daemon=True).start()
        while len(answers) < count:
            answer = arrived.get()
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
            on_answer(answer)
    except KeyboardInterrupt:
        pass  # what there is until now is the report
    finally:
        stop.set()
    return TrafficReport(answers, time.perf_counter() - start)


def _ask(session: requests.Session, url: str, timeout_s: float) -> RequestResult:
    start = time.perf_counter()
    try:
        with session.get(url, timeout=timeout_s, allow_redirects=False, stream=True) as response:
            for _ in response.iter_content(65536):
                pass  # read to its end, however large, and not kept
    except requests.RequestException as exc:
        return RequestResult("", 0, time.perf_counter() - start, _failure_in_words(exc))
    return RequestResult(response.headers.get(SERVED_BY) or UNNAMED, response.status_code, time.perf_counter() - start)


def _failure_in_words(exc: requests.RequestException) -> str:
    """The innermost cause. The exceptions that `requests` wraps around it name objects and addresses in memory."""
    cause: BaseException = exc
    while True:
        candidates = (getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__)
        inner = next((each for each in candidates if isinstance(each, BaseException)), None)
        if inner is None:
            break
        cause = inner
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


@click.command()
@click.argument("url")
@click.option("--requests", "count", type=click.IntRange(min=1), default=200, show_default=True, help="How many.")
@click.option("--clients", type=click.IntRange(1, 1000), default=8, show_default=True, help="How many at once.")
@click.option("--timeout", "timeout_s", type=Number(min=0, max=86400, min_open=True), default=30.0, show_default=True,
              help="Seconds to wait for a connection, and for each part of an answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def traffic(url: str, count: int, clients: int, timeout_s: float, as_json: bool) -> None:
    """Send requests to URL and show which server answered how often and how fast.

    Servers are told apart by the field X-Served-By of their responses. Exits 1 when a request failed: no answer, or a status of
    400 or more. Ctrl-C shows what there is until then.

    \b
    Examples:
      prefork-lb traffic http://127.0.0.1:8000/ --requests 1000 --clients 16
    """
    try:
        check_url(url)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="URL") from exc
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("requests", total=count)
        report = send_traffic(url, count, clients, timeout_s=timeout_s, on_answer=lambda answer: bar.advance(task))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
    else:
        show(report)
    if report.failed:
        sys.exit(1)
    if len(report.answers) < count:
        sys.exit(_INTERRUPTED)


def show(report: TrafficReport) -> None:
    """The report for people."""
    answered = len(report.answers) - sum(report.errors.values())
    if answered:
        print_table(report.table(), folds="status codes")
    rate = len(report.answers) / report.wall_s if report.wall_s else 0.0
    click.echo(f"{len(report.answers)} requests in {report.wall_s:.2f} s ({rate:.0f}/s), {report.failed} failed")
    for reason, times in report.errors.most_common():
        click.echo(f"no answer, {times} x {reason}")
