"""`python -m prefork_lb.cluster`: the controller starts it."""
from __future__ import annotations

from prefork_lb.cluster.process import run
from prefork_lb.side_process import main

main("prefork_lb.cluster", run)
