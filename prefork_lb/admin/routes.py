"""What a path of the administration interface is answered by."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Response

from prefork_lb.admin.requests import AdminRequest

Handler = Callable[..., Response]
"""Takes the request, and the path's variables by name."""


@dataclass(frozen=True)
class Route:
    """A method at a path, as werkzeug's rules have it."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False  # needs no token


class Routes:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = routes
        # An address in a path may hold two slashes, as `https://` does.
        self._map = Map([Rule(route.path, methods=[route.method], endpoint=number) for number, route in enumerate(routes)],
                        merge_slashes=False, redirect_defaults=False, strict_slashes=False)

    def find(self, request: AdminRequest) -> tuple[Route, dict[str, Any]]:
        """The route, and the path's variables. Raises werkzeug's NotFound and MethodNotAllowed."""
        number, variables = self._map.bind("admin").match(request.path, request.method)
        return self.routes[number], dict(variables)
