"""The instances that run, as the commands see them: those of this user, for root those of all users."""
from __future__ import annotations

import os
from collections.abc import Iterator

import click

from prefork_lb.shared.segment import Segment, SegmentError, open_segment, segment_names


def running_segments() -> Iterator[Segment]:
    """The segment of each instance whose gunicorn master lives. The caller closes them. Raises ClickException."""
    for name in segment_names(None if os.geteuid() == 0 else os.geteuid()):
        try:
            segment = open_segment(name)
        except SegmentError as exc:
            raise click.ClickException(str(exc)) from exc
        if segment is None:
            continue
        if segment.masters():
            yield segment
        else:
            segment.close()
