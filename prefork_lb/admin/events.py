"""Recent events of the instance, as the API shows them."""
from __future__ import annotations

from collections.abc import Sequence

import msgspec
from werkzeug.wrappers import Response

from prefork_lb.admin.answers import json_response
from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.requests import AdminRequest
from prefork_lb.shared import events
from prefork_lb.shared.segment import Segment

_USUAL, _MOST = 100, 1000


class Events:
    """The ring of events in shared memory."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def endpoints(self) -> Sequence[Endpoint]:
        return [Endpoint("GET", "/api/v1/events", self.recent)]

    def recent(self, request: AdminRequest) -> Response:
        """The newest events, oldest first."""
        limit, after = request.number("limit", _USUAL, 1, _MOST), request.number("after", 0, 0, 1 << 62)
        newest = events.last(self._segment)
        return json_response({"events": events.recent(self._segment, after, limit), "last": newest})

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return events.last(self._segment)

    def messages(self, after: int) -> list[tuple[int, bytes]]:
        """The events after this number, each with its own number, as JSON. A number beyond the newest is of an instance that has
        ended: then it is all of them."""
        found = events.recent(self._segment, after if after <= self.last else 0)
        return [(event.seq, msgspec.json.encode(event)) for event in found]
