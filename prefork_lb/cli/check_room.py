"""The part of `prefork-lb check` on shared memory: whether a start, or a reload of a running instance, finds room."""
from __future__ import annotations

import contextlib
import os

from prefork_lb.config.model import Config
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.shared.finding import DIRECTORY, visible_segments
from prefork_lb.wiring.room import problems_at_reload, room_for

_MIB = 1 << 20


def room_notices(config: Config) -> list[str]:
    """What has no room, a line each: in the instances that run by the same file, or, when none does, at a start.

    Raises SegmentError when an instance of another user cannot be looked at.
    """
    found, is_running = [], False
    for segment in visible_segments():
        masters = segment.masters()
        running = configuration_of(segment) if masters else None
        if running is not None and _is_same_file(running.source, masters[-1], config.source):
            is_running = True
            found += [f"gunicorn master {masters[-1]}: a reload would keep what is in force: {problem}"
                      for problem in problems_at_reload(config, config.listen.worker_count(), segment)]
        segment.close()
    if not is_running:
        found += _notices_at_start(config)
    return found


def _notices_at_start(config: Config) -> list[str]:
    try:
        status = os.statvfs(DIRECTORY)
    except OSError as exc:
        return [f"{DIRECTORY}: {exc.strerror}; prefork_lb needs shared memory there"]
    wanted, free = room_for(config, config.listen.worker_count()).size, status.f_bavail * status.f_frsize
    if wanted <= free:
        return []
    return [f"{DIRECTORY}: a start needs {wanted / _MIB:.1f} MiB and {free / _MIB:.1f} MiB are free; enlarge it "
            "(mount -o remount,size=...) or remove what fills it"]


def _is_same_file(running: str, master: int, checked: str) -> bool:
    """Whether a gunicorn master reads the file that is checked; its name may be relative to the master's folder."""
    with contextlib.suppress(OSError):
        return os.path.samefile(os.path.join(f"/proc/{master}/cwd", running), checked)
    return False
