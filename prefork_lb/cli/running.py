"""The instances that run, as the commands see them: those of this user, for root those of all users."""
from __future__ import annotations

from collections.abc import Iterator

import click

from prefork_lb.shared.finding import visible_segments
from prefork_lb.shared.segment import Segment, SegmentError


def running_segments() -> Iterator[Segment]:
    """The segment of each instance whose gunicorn master lives. The caller closes them. Raises ClickException."""
    try:
        for segment in visible_segments():
            if segment.masters():
                yield segment
            else:
                segment.close()
    except SegmentError as exc:
        raise click.ClickException(str(exc)) from exc
