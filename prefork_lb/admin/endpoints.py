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
class Endpoint:
    """A method at a path, as werkzeug's rules have it."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False  # needs no token


class Endpoints:
    """Finds the endpoint of a request."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.all = endpoints
        # An address in a path may hold two slashes, as `https://` does.
        self._map = Map([Rule(each.path, methods=[each.method], endpoint=number) for number, each in enumerate(endpoints)],
                        merge_slashes=False, redirect_defaults=False, strict_slashes=False)

    def find(self, request: AdminRequest) -> tuple[Endpoint, dict[str, Any]]:
        """The endpoint, and the path's variables. Raises werkzeug's NotFound and MethodNotAllowed."""
        number, variables = self._map.bind("admin").match(request.path, request.method)
        return self.all[number], dict(variables)
