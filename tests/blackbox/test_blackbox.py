"""The black-box suite against prefork_lb under a real gunicorn, and the suite against proxies that are none."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from tests.blackbox import dummies
from tests.blackbox.known import KNOWN_FAILURES
from tests.blackbox.origin import Origin
from tests.blackbox.proxies import PROXIES
from tests.blackbox.runner import Verdict, run_suite
from tests.blackbox.suite import CASES

PASSES_AT_LEAST = 202 / 217  # ahead of nginx, HAProxy and Apache, which pass 84 to 93 % here


AT_ONCE = 3  # most of a suite's time is waiting


def run(proxy: Callable[[int], AbstractContextManager[int]], *topics: str) -> list[Verdict]:
    origin = Origin()
    try:
        with proxy(origin.port) as port:
            return run_suite([case for case in CASES if not topics or case.topic in topics], port, origin)
    finally:
        origin.stop()


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[list[Verdict]]]]:
    """What the suite finds with prefork_lb under each worker class, under way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {worker_class: pool.submit(run, PROXIES[worker_class]) for worker_class in KNOWN_FAILURES}


def failing(verdicts: list[Verdict]) -> dict[str, str]:
    """The failing cases, each with what is wrong and both of its sides."""
    return {verdict.case.name: f"[{verdict.case.basis}] {'; '.join(verdict.problems)}\n{verdict.outcome.describe()}"
            for verdict in verdicts if verdict.problems}


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 217
    assert all(set(known) <= set(names) for known in KNOWN_FAILURES.values())


@pytest.mark.slow
@pytest.mark.parametrize("worker_class", KNOWN_FAILURES)
def test_prefork_lb_passes_all_but_the_known_cases(
    worker_class: str, runs: dict[str, Future[list[Verdict]]]
) -> None:
    known = KNOWN_FAILURES[worker_class]
    verdicts = runs[worker_class].result()
    failed = failing(verdicts)
    surprises = {name: text for name, text in failed.items() if name not in known}
    assert not surprises, "\n\n".join(f"{name} {text}" for name, text in surprises.items())
    mended = sorted(set(known) - set(failed))
    assert not mended, f"these pass now; take them out of known.py: {mended}"
    assert len(verdicts) - len(failed) >= PASSES_AT_LEAST * len(verdicts)


@pytest.mark.slow
def test_a_copier_of_bytes_is_found_out() -> None:
    verdicts = run(dummies.copier, "smuggling")
    assert len(failing(verdicts)) > len(verdicts) / 2


@pytest.mark.slow
def test_a_refuser_of_everything_is_found_out() -> None:
    verdicts = run(dummies.refuser, "bodies", "broken servers")
    assert len(failing(verdicts)) == len(verdicts)
