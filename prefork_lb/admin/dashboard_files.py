"""The dashboard's files. They hold nothing of the instance, so they need no token."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Response

from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.requests import AdminRequest

_STATIC = Path(__file__).with_name("static")


class DashboardFiles:
    """The handlers of files."""

    def endpoints(self) -> Sequence[Endpoint]:
        return [Endpoint("GET", "/", self.index, is_open=True), Endpoint("GET", "/static/<name>", self.file, is_open=True)]

    def index(self, request: AdminRequest) -> Response:
        """The dashboard."""
        return self.file(request, "index.html")

    def file(self, request: AdminRequest, name: str) -> Response:
        """One of its files; a browser asks each time whether it has changed."""
        return send_from_directory(_STATIC, name, request.environ, max_age=0)
