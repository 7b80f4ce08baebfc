"""What readers of the API get. All of it is of the newest look, so a thousand readers cost what one does."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from werkzeug.wrappers import Response

from prefork_lb.admin.answers import Problem, json_response
from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.openapi import DOCUMENT
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.requests import AdminRequest
from prefork_lb.config.masked import masked
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.metrics import exposition
from prefork_lb.shared.segment import Segment


class Reading:
    """The handlers, over the newest frame."""

    def __init__(self, segment: Segment, publisher: Publisher) -> None:
        self._segment, self._publisher = segment, publisher

    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint("GET", "/healthz", self.healthz, is_open=True),
            Endpoint("GET", "/readyz", self.readyz, is_open=True),
            Endpoint("GET", "/metrics", self.metrics),
            Endpoint("GET", "/api/v1/instance", self.instance),
            Endpoint("GET", "/api/v1/openapi.json", self.openapi),
            Endpoint("GET", "/api/v1/workers", self.workers),
            Endpoint("GET", "/api/v1/config", self.config),
            Endpoint("GET", "/api/v1/splits", self.splits),
            Endpoint("GET", "/api/v1/splits/<id>", self.split),
            Endpoint("GET", "/api/v1/pools", self.pools),
            Endpoint("GET", "/api/v1/pools/<name>", self.pool),
            Endpoint("GET", "/api/v1/pools/<name>/servers", self.servers),
            Endpoint("GET", "/api/v1/pools/<name>/servers/<path:address>", self.server),
        ]

    def healthz(self, request: AdminRequest) -> Response:
        """Alive: this process answers."""
        return Response("alive\n", content_type="text/plain")

    def readyz(self, request: AdminRequest) -> Response:
        """Whether each pool has a server that may be used, or starts one for the next request."""
        lacking = [pool["name"] for pool in self._document["pools"]
                   if not any(server["usable"] for server in pool["servers"]) and not _needs_none(pool)]
        if lacking:
            # The answer needs no token; the names do.
            names = f": {', '.join(lacking)}" if request.caller is not None else ""
            return Response(f"no usable server{names}\n", 503, content_type="text/plain")
        return Response("ready\n", content_type="text/plain")

    def metrics(self, request: AdminRequest) -> Response:
        """The numbers of this moment for Prometheus."""
        sessions = {(server["pool"], server["address"]): server["sessions"] for pool in self._document["pools"]
                    for server in pool["servers"] if server["sessions"] is not None}
        split_weights = {(str(split["route"]), pool): weight for split in self._document["splits"]
                         for pool, weight in split["weights"].items()}
        kind, body = exposition(self._segment, request.headers.get("Accept", ""), sessions, split_weights)
        return Response(body, content_type=kind)

    def instance(self, request: AdminRequest) -> Response:
        """The whole document."""
        return json_response(self._publisher.newest.encoded())

    def openapi(self, request: AdminRequest) -> Response:
        """The description of this API."""
        return json_response(DOCUMENT)

    def workers(self, request: AdminRequest) -> Response:
        """The worker processes."""
        return json_response({"workers": self._document["workers"]})

    def config(self, request: AdminRequest) -> Response:
        """The configuration in force, without its secrets."""
        config = configuration_of(self._segment)
        if config is None:
            raise Problem(503, "no configuration is in force yet, or this version cannot read it")
        return json_response(masked(config))

    def splits(self, request: AdminRequest) -> Response:
        """The splits of all routes."""
        return json_response({"splits": self._document["splits"]})

    def split(self, request: AdminRequest, id: str) -> Response:
        """The split of a route, with its ETag."""
        split = find_split(self._document, id)
        return json_response(split, headers={"ETag": split["etag"]})

    def pools(self, request: AdminRequest) -> Response:
        """All pools, with their servers."""
        return json_response({"pools": self._document["pools"]})

    def pool(self, request: AdminRequest, name: str) -> Response:
        """One pool, with its servers."""
        return json_response(find_pool(self._document, name))

    def servers(self, request: AdminRequest, name: str) -> Response:
        """The servers of a pool."""
        return json_response({"servers": find_pool(self._document, name)["servers"]})

    def server(self, request: AdminRequest, name: str, address: str) -> Response:
        """One server, with its ETag."""
        server = find_server(self._document, name, address)
        return json_response(server, headers={"ETag": server["etag"]} if server["etag"] else None)

    @property
    def _document(self) -> dict[str, Any]:
        return self._publisher.newest.document


def _needs_none(pool: dict[str, Any]) -> bool:
    """Whether the pool's rule has scaled it to none: its first server starts when a request waits for it."""
    scaling = pool["scaling"]
    return scaling is not None and scaling["mode"] == "auto" and not scaling["wanted"]


def find_pool(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The pool with this name. Raises Problem."""
    for pool in document["pools"]:
        if pool["name"] == name:
            return dict(pool)
    raise Problem(404, f"there is no pool {name!r}; there are {', '.join(pool['name'] for pool in document['pools'])}")


def find_split(document: dict[str, Any], id: str) -> dict[str, Any]:
    """The split of the route with this id. Raises Problem."""
    for split in document["splits"]:
        if split["id"] == id:
            return dict(split)
    raise Problem(404, f"there is no route {id!r} that has a split")


def find_server(document: dict[str, Any], name: str, address: str) -> dict[str, Any]:
    """The server of a pool with this address. Raises Problem."""
    pool = find_pool(document, name)
    for server in pool["servers"]:
        if server["address"] == address:
            return dict(server)
    raise Problem(404, f"there is no server {address!r} in the pool {name}")
