"""The configuration in force in an instance, from its shared memory."""
from __future__ import annotations

import logging

import msgspec

from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published
from prefork_lb.shared.published_config import published
from prefork_lb.shared.segment import Segment

log = logging.getLogger("prefork_lb")


def configuration_of(segment: Segment) -> Config | None:
    """The configuration in force in an instance; None when there is none yet, or this version cannot read it."""
    _, data = published(segment)
    try:
        return decode_published(data)[0] if data else None
    except msgspec.MsgspecError as exc:
        log.warning("%s: the configuration in force cannot be read by this version: %s", segment.name, exc)
        return None
