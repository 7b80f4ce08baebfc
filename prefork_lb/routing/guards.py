"""Guards: what each request of a route has to pass before it goes on, beside the rules that go by its head alone."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prefork_lb.routing.template import Facts


def _nothing() -> None:
    """A guard that holds nothing has nothing to give back."""


class Passed(NamedTuple):
    """What a guard says of a request that it lets pass."""

    leave: Callable[[], None] = _nothing  # to be called once, when the exchange is over
    fields: Sequence[tuple[bytes, bytes]] = ()  # for the server
    user: bytes = b""  # who has sent the request; empty: not known


Guard = Callable[[Facts], Passed]
"""Lets a request pass, or raises a ProxyError. It may wait."""


class Guarded:
    """The guards of a route, for the requests with one head from one client."""

    def __init__(self, guards: Sequence[Guard], facts: Facts) -> None:
        self._guards, self._facts = guards, facts

    def enter(self) -> Passed:
        """Let the next of these requests pass all guards in turn. Raises what a guard raises; nothing is held then."""
        passed: list[Passed] = []

        def leave() -> None:
            while passed:
                passed.pop().leave()

        try:
            for guard in self._guards:
                passed.append(guard(self._facts))
        except BaseException:
            leave()
            raise
        fields = [field for each in passed for field in each.fields]
        return Passed(leave, fields, next((each.user for each in passed if each.user), b""))
