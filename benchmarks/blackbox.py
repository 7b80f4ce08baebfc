"""Runs the black-box suite against nginx, HAProxy, Apache and prefork_lb and prints who passes what.

    python benchmarks/blackbox.py                      # all of them, a table by topic
    python benchmarks/blackbox.py nginx gthread -v     # these, with both sides of every failing case
    python benchmarks/blackbox.py apache -k chunk      # only the cases whose names hold a word
    python benchmarks/blackbox.py --list               # the cases
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.blackbox.describe import one_line
from tests.blackbox.origin import Origin
from tests.blackbox.proxies import PROXIES, NotStarted
from tests.blackbox.runner import Verdict, run_suite
from tests.blackbox.suite import CASES


def run(name: str, word: str, at_once: int) -> list[Verdict]:
    origin = Origin()
    try:
        with PROXIES[name](origin.port) as port:
            return run_suite([case for case in CASES if word in case.name], port, origin, at_once)
    finally:
        origin.stop()


def report(console: Console, name: str, verdicts: list[Verdict], seconds: float, verbose: bool) -> None:
    failed = [verdict for verdict in verdicts if verdict.problems]
    console.print(f"{name}: {len(verdicts) - len(failed)} of {len(verdicts)} in {seconds:.0f} s", highlight=False)
    for verdict in failed:
        text = f"  {verdict.case.name} [{verdict.case.basis}]: {'; '.join(verdict.problems)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        if verbose:
            for line in verdict.outcome.describe().splitlines():
                console.print(f"      {line}", markup=False, highlight=False, soft_wrap=True)


def table(console: Console, results: dict[str, list[Verdict]]) -> None:
    shown = Table("topic", "cases", *results)
    topics = dict.fromkeys(case.topic for case in CASES)
    for topic in [*topics, "all"]:
        chosen = {name: [verdict for verdict in verdicts if topic in (verdict.case.topic, "all")]
                  for name, verdicts in results.items()}
        total = max((len(verdicts) for verdicts in chosen.values()), default=0)
        passed = [sum(not verdict.problems for verdict in verdicts) for verdicts in chosen.values()]
        cells = [f"{count} ({100 * count / total:.1f} %)" if total else "-" for count in passed]
        shown.add_row(topic, str(total), *cells)
    console.print(shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxies", nargs="*", metavar="PROXY", help=", ".join(PROXIES))
    parser.add_argument("-k", dest="word", default="", help="only cases whose names hold this")
    parser.add_argument("-j", dest="at_once", type=int, default=8, help="cases at once")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show both sides of failing cases")
    parser.add_argument("--list", action="store_true", help="show the cases and leave")
    options = parser.parse_args()
    if unknown := set(options.proxies) - set(PROXIES):
        parser.error(f"no such proxy: {', '.join(sorted(unknown))}; there are {', '.join(PROXIES)}")
    if options.list:
        for case in CASES:
            sys.stdout.write(one_line(case) + "\n")
        return 0
    console, results = Console(), {}
    for name in options.proxies or PROXIES:
        began = time.monotonic()
        try:
            results[name] = run(name, options.word, options.at_once)
        except NotStarted as error:
            console.print(f"{name}: not started: {error}", markup=False)
            continue
        report(console, name, results[name], time.monotonic() - began, options.verbose)
    table(console, results)
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
