"""What the ledger's lock costs when many processes take it: claims and releases a second, and how often a process had to wait.

Each process is what a worker is to the ledger: a row of its own, and the pool's lease. Between two requests it computes for
`--work` microseconds, as a worker does for the rest of a request; 0 shows the lock alone. More processes than cores show what
happens when a process loses its core inside the lock.

    python -m benchmarks.workers
    python -m benchmarks.workers --work 0 --processes 2
"""
from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import time
from multiprocessing.synchronize import Barrier

from rich.console import Console
from rich.table import Table

from benchmarks.policies import AnyRequest, new_pool
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, ServerEntry, register

SERVERS = [ServerEntry(f"127.0.0.1:{number + 1}", 1, 0, False) for number in range(4)]
Counts = tuple[int, int, float, float]


def work(segment: Segment, work_us: float, seconds: float, begin: Barrier, told: multiprocessing.SimpleQueue[Counts]) -> None:
    """Lease and give back; tell requests, waits (voluntary context switches), seconds of CPU, and the longest lease in ms."""
    ledger = Ledger(segment, one_thread=True)
    entry = PoolEntry("web", SERVERS)
    pool, request = new_pool(ledger, entry, register(segment, ledger, [entry])["web"], "least-connections"), AnyRequest()
    lease, clock = pool.lease, time.perf_counter
    begin.wait(60)
    before = resource.getrusage(resource.RUSAGE_SELF)
    done, longest, now = 0, 0.0, clock()
    until = now + seconds
    while now < until:
        began = now
        taken = lease(request, ())
        now = clock()
        longest = max(longest, now - began)
        taken.abandon()
        done += 1
        ready = now + work_us / 1e6
        while now < ready:
            now = clock()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told.put((done, after.ru_nvcsw - before.ru_nvcsw, used, 1000 * longest))


def measure(processes: int, work_us: float, seconds: float) -> Counts:
    """All processes together; the longest lease is that of any."""
    segment = attach_or_create(os.getpid(), Layout(processes + 1, 8, 8))
    context = multiprocessing.get_context("fork")
    begin, told = context.Barrier(processes), context.SimpleQueue()
    children = [context.Process(target=work, args=(segment, work_us, seconds, begin, told)) for _ in range(processes)]
    with contextlib.ExitStack() as at_end:
        at_end.callback(remove_segment, os.getpid())
        for child in children:
            child.start()
        counts = [told.get() for _ in children]
        for child in children:
            child.join()
    return sum(c[0] for c in counts), sum(c[1] for c in counts), sum(c[2] for c in counts), max(c[3] for c in counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, action="append", help="may be repeated (default: 1, 2, 4, 8, 16, 32)")
    parser.add_argument("--work", type=float, default=40.0, help="microseconds of other work a request (default: 40)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each figure is measured (default: 2)")
    options = parser.parse_args()
    table = Table("processes", "requests/s", "CPU us a request", "waits in 1000 requests", "longest lease, ms",
                  title=f"{options.work:g} us of other work a request", title_justify="left")
    for processes in options.processes or [1, 2, 4, 8, 16, 32]:
        done, waits, used, longest = measure(processes, options.work, options.seconds)
        table.add_row(str(processes), f"{done / options.seconds:.0f}", f"{1e6 * used / done:.2f}", f"{1000 * waits / done:.2f}",
                      f"{longest:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
