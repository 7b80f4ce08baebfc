"""`python -m prefork_lb.cluster SEGMENT --descriptor NUMBER --controller PID [--log FILE]`: the controller starts it, nobody else
needs to."""
from __future__ import annotations

import argparse
import sys

from prefork_lb.cluster.process import run

parser = argparse.ArgumentParser(prog="python -m prefork_lb.cluster", description=__doc__)
parser.add_argument("segment")
parser.add_argument("--descriptor", type=int, required=True)
parser.add_argument("--controller", type=int, required=True)
parser.add_argument("--log", default="")
arguments = parser.parse_args()
sys.exit(run(arguments.segment, arguments.descriptor, arguments.controller, arguments.log))
