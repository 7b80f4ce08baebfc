"""Servers whose behaviour a test changes while they run."""
from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.behaviors import head
from tests.support.origin import Behavior, Link, Origin, Request

Mood = str | int
"""`well`; a status to answer with at once; `reset`: a reset instead of an answer; `late`: after 0.3 s; `hang`: none until
the test releases it."""

CHECK = "/healthz"


class MoodyOrigin(Origin):
    """`moods` by index, for every path but `/healthz`, which goes by `checks`; a request to `/slow` takes 30 ms when well.

    `fields` are added to every answer.
    """

    def __init__(self, servers: int) -> None:
        super().__init__(servers, _behavior(lambda link, request: self._mood(link, request)))
        self.moods: list[Mood] = ["well"] * servers
        self.checks: list[Mood] = ["well"] * servers
        self.fields: list[tuple[str, str]] = []
        self.checked = [0] * servers
        self.seen: list[tuple[int, str]] = []  # which server, and method of each request but checks

    def _mood(self, link: Link, request: Request) -> Mood:
        index = link.server.index
        if request.path == CHECK:
            self.checked[index] += 1
            return self.checks[index]
        self.seen.append((index, request.arrival.method))
        return self.moods[index]

    def share(self, index: int, start: int = 0) -> int:
        """How many of the requests from number `start` on one server got."""
        return sum(1 for server, _ in self.seen[start:] if server == index)


def _behavior(mood_of: Callable[[Link, Request], Mood]) -> Behavior:
    async def behave(link: Link, request: Request) -> bool:
        mood = mood_of(link, request)
        origin = link.server.origin
        assert isinstance(origin, MoodyOrigin)
        for length in request.arrival.values("content-length"):
            await link.reader.readexactly(int(length))
        if mood == "reset":
            link.reset()
            return False
        if mood == "hang":
            await origin.held(link)
            mood = "well"
        if mood == "late":
            await asyncio.sleep(0.3)
            mood = "well"
        body = link.server.name.encode()
        fields = [("Content-Length", str(len(body))), *origin.fields]
        await link.send(head(link, 200 if mood == "well" else int(mood), fields) + body)
        return True

    return behave

