"""A process that the controller keeps running beside itself: its command line, and what it does before its work.

The controller's side of it is `controller.supervisor`.
"""
from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from prefork_lb.error_log import log_to
from prefork_lb.shared.finding import open_inherited
from prefork_lb.shared.segment import Segment

_PR_SET_PDEATHSIG = 1


def main(module: str, work: Callable[[Segment], int]) -> NoReturn:
    """Be `python -m MODULE`. `work` gets the instance's segment, and returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="The controller starts it, nobody else needs to.")
    parser.add_argument("segment")
    parser.add_argument("--descriptor", type=int, required=True, help="the segment's file")
    parser.add_argument("--controller", type=int, required=True, help="the process ends with the one of this pid")
    parser.add_argument("--log", default="", help="where messages go; none: standard error")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != arguments.controller:
        sys.exit(0)  # it ended before the call
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the master's; it may be signalled as a group
    log_to(arguments.log)
    segment = open_inherited(arguments.descriptor, arguments.segment)
    os.close(arguments.descriptor)
    sys.exit(work(segment) if segment is not None else 0)  # 0: the controller looks again
