"""A filter: a share of the visitors sees the new version, and each keeps what he saw.

    [[routes]]
    hosts = ["www.example.org"]
    pool = "old"
    filters = [{ use = "ab_test:ABTest", name = "checkout", pool = "new", share = 0.1 }]

The cookie ab-NAME holds the visitor's place between 0 and 1,000,000, and not the variant: a greater share moves visitors to the
new version, a smaller one moves them back. The server finds the variant in X-Variant. Requests and errors of each variant are
counted over all workers; X-Variant-Counts tells them to those who ask with a field of that name.
"""
from __future__ import annotations

import random

from prefork_lb.filters import Exchange, Filter, Request, Response, Setup

_PLACES = 1_000_000
_A_YEAR = 31_536_000
_REQUESTS, _ERRORS = 0, 2  # integers of the memory: of the old variant, and in the next one of the new


class ABTest(Filter):
    """Two variants, by pool."""

    def __init__(self, setup: Setup) -> None:
        self._cookie = f"ab-{setup.text('name')}"
        self._pool = setup.text("pool")
        self._share = setup.number("share")
        if not 0 <= self._share <= 1:
            raise ValueError(f"share = {self._share}: expected a number in 0..1")
        self._memory = setup.memory
        self._random = random.Random()

    def on_request(self, request: Request) -> None:
        place = request.cookie(self._cookie)
        if not (place.isascii() and place.isdigit() and len(place) <= 6):
            place = str(self._random.randrange(_PLACES))
            request.notes[self._cookie] = place  # to be told to the client
        is_new = int(place) < self._share * _PLACES
        request.notes["is_new"] = is_new
        request.fields.set("X-Variant", "new" if is_new else "old")
        if is_new:
            request.pool = self._pool

    def on_response(self, request: Request, response: Response) -> None:
        if self._cookie in request.notes:
            response.fields.add("Set-Cookie", f"{self._cookie}={request.notes[self._cookie]}; Path=/; Max-Age={_A_YEAR}; "
                                "HttpOnly; SameSite=Lax")
            # A cache for many clients would give one visitor's cookie, and variant, to all.
            response.fields.set("Cache-Control", "private, no-cache")
        if "X-Variant-Counts" in request.fields:
            old, new, old_errors, new_errors = (self._memory[index] for index in range(4))
            response.fields.set("X-Variant-Counts", f"old={old}/{old_errors}, new={new}/{new_errors}")

    def on_end(self, request: Request, exchange: Exchange) -> None:
        if "is_new" in request.notes:
            variant = int(bool(request.notes["is_new"]))
            self._memory.add(_REQUESTS + variant)
            if exchange.status >= 500:
                self._memory.add(_ERRORS + variant)
