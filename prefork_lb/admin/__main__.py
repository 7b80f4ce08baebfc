"""`python -m prefork_lb.admin`: the controller starts it."""
from __future__ import annotations

from prefork_lb.admin.process import run
from prefork_lb.side_process import main

main("prefork_lb.admin", run)
