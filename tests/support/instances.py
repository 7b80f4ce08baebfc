"""The instances that run on this machine, as shared memory has them."""
from __future__ import annotations

from prefork_lb.cli.running import running_segments
from prefork_lb.shared.view import InstanceView, view


def instances() -> list[InstanceView]:
    """The instances whose gunicorn master runs."""
    found = []
    for segment in running_segments():
        found.append(view(segment))
        segment.close()
    return found
