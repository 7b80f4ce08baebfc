"""The instances that run, as the commands see them: those of this user, for root those of all users."""
from __future__ import annotations

import os
import pwd
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


def who() -> str:
    """The user who runs the command, for the record of changes."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def running_segment(master: int | None) -> Segment:
    """The segment of the one instance that runs, or of the one with this gunicorn master. Raises ClickException."""
    segments = [segment for segment in running_segments() if master is None or master in segment.masters()]
    if not segments:
        what = f"no instance of the gunicorn master {master} runs" if master is not None else "no instance runs"
        raise click.ClickException(f"{what} (of this user)")
    if len(segments) > 1:
        masters = ", ".join(str(segment.masters()[-1]) for segment in segments)
        raise click.ClickException(f"several instances run; choose one by its gunicorn master: --master with one of {masters}")
    return segments[0]
