"""The end of an instance, by its last master.

The controller ends the servers that scaling has started when it sees that no master is left. But in a container the kernel kills
all processes when the first one ends, and systemd kills what is left of a service when its main process has ended
(KillMode=mixed). So the master waits for the controller, which waits for these servers.
"""
from __future__ import annotations

import time

from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.making import remove_segment
from prefork_lb.shared.scaling_state import scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms

# The controller moves four times a second, and at its end between one thing and the next. The longest of these is the stop of a
# pool's units, up to 10 s. One that is stopped must not keep the master.
_BELIEVED_MS = 15_000
_LOOK_S = 0.05


def end_instance(master: int) -> None:
    """Remove the shared memory of the instance whose only living gunicorn master is `master`, and return when its scaled servers
    have ended."""
    segment = remove_segment(master)
    if segment is None:
        return
    if any(scaling_of(segment, number) is not None for number in range(segment.layout.pools)):
        while _controller_moves(segment):
            time.sleep(_LOOK_S)
    segment.close()


def _controller_moves(segment: Segment) -> bool:
    pid, started = segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1]
    return is_alive(pid, started) and now_ms() - segment.cells[at.H_BEAT] < _BELIEVED_MS
