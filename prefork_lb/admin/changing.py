"""Changes by operators. Each is in force for all workers at their next pick, is told by an event, and has a line in the log."""
from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType
from werkzeug.wrappers import Response

from prefork_lb.admin.answers import Problem, json_response
from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.reading import find_pool, find_server, find_split
from prefork_lb.admin.requests import AdminRequest
from prefork_lb.errors import BadValue, NotThere, Outdated, Refused, SteeringError
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.splits import splits_of
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import MOST_SPLIT_WEIGHT
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import FROM_CONFIGURATION, Change, Steering
from prefork_lb.shared.table import MOST_CONNECTIONS, MOST_WEIGHT
from prefork_lb.wiring.reloading import ReloadRefused, reload

# The lock of the ledger may be held by a process that was stopped. One request waits for it; others give up after so long.
_PATIENCE_S = 5.0

Weight = Annotated[int, Meta(ge=1, le=MOST_WEIGHT)]
Connections = Annotated[int, Meta(ge=0, le=MOST_CONNECTIONS)]
SplitWeight = Annotated[int, Meta(ge=0, le=MOST_SPLIT_WEIGHT)]

_STATUSES: dict[type[SteeringError], int] = {BadValue: 400, NotThere: 404, Refused: 409, Outdated: 412}

log = logging.getLogger("prefork_lb")


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    admin: Literal["ready", "drain", "maintenance"] | UnsetType = UNSET
    weight: Weight | None | UnsetType = UNSET
    max_connections: Connections | None | UnsetType = UNSET


class _NewServer(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    weight: Weight = 1
    max_connections: Connections = 0
    backup: bool = False


class _Scale(msgspec.Struct, forbid_unknown_fields=True):
    scale: Annotated[int, Meta(ge=0)] | Literal["auto"]


class _Roll(msgspec.Struct, forbid_unknown_fields=True):
    surge: Annotated[int, Meta(ge=1)] = 1


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    weights: Annotated[dict[str, SplitWeight | None], Meta(min_length=1)]


class Changing:
    """The handlers of changes, all by `shared.steering`."""

    def __init__(self, segment: Segment, publisher: Publisher) -> None:
        self._segment, self._publisher = segment, publisher
        self._turn = threading.Lock()
        self._ledger: Ledger | None = None

    def endpoints(self) -> Sequence[Endpoint]:
        server = "/api/v1/pools/<name>/servers/<path:address>"
        return [
            Endpoint("PATCH", server, self.change),
            Endpoint("PATCH", "/api/v1/pools/<name>", self.scale),
            Endpoint("POST", "/api/v1/pools/<name>/roll", self.roll),
            Endpoint("DELETE", server, self.remove),
            Endpoint("POST", "/api/v1/pools/<name>/servers", self.add),
            Endpoint("PATCH", "/api/v1/splits/<id>", self.split),
            Endpoint("POST", "/api/v1/reload", self.reload),
        ]

    def change(self, request: AdminRequest, name: str, address: str) -> Response:
        """Set a server's administrative state, weight or limit."""
        wanted = request.body_as(_Change)
        change = Change(
            Admin[wanted.admin.upper()] if wanted.admin is not UNSET else None,
            *(FROM_CONFIGURATION if value is None else value if value is not UNSET else None
              for value in (wanted.weight, wanted.max_connections)))
        if change == Change():
            raise Problem(400, "nothing to change; expected admin, weight or max_connections")
        with self._steering() as steering:
            told = steering.change(name, address, change, _who(request), request.expectation())
        _log(request, name, address, "; ".join(told) or "as it was")
        return self._shown(name, address)

    def add(self, request: AdminRequest, name: str) -> Response:
        """Add a server to a pool."""
        find_pool(self._publisher.newest.document, name)
        new = request.body_as(_NewServer)
        with self._steering() as steering:
            address = steering.add_server(name, new.address, new.weight, new.max_connections, new.backup, who=_who(request))
        _log(request, name, address, "added")
        answer = self._shown(name, address)
        answer.status_code = 201
        answer.headers["Location"] = f"/api/v1/pools/{quote(name)}/servers/{quote(address, safe='')}"
        return answer

    def remove(self, request: AdminRequest, name: str, address: str) -> Response:
        """Remove a server from a pool."""
        is_forced = request.flag("force")
        with self._steering() as steering:
            steering.remove_server(name, address, who=_who(request), is_expected=request.expectation(), only_idle=not is_forced)
        _log(request, name, address, "removed")
        self._publisher.look()
        return Response(status=204)

    def scale(self, request: AdminRequest, name: str) -> Response:
        """Set how many servers a pool has that scales."""
        wanted = request.body_as(_Scale).scale
        with self._steering() as steering:
            steering.scale(name, None if wanted == "auto" else wanted, _who(request))
        log.info("administration interface: %s: pool %s: scale %s", request.who, name, wanted)
        return json_response(find_pool(self._publisher.look().document, name))

    def roll(self, request: AdminRequest, name: str) -> Response:
        """Replace the servers of a pool that scales by new ones."""
        surge = request.body_as(_Roll).surge
        with self._steering() as steering:
            steering.roll(name, surge, _who(request))
        log.info("administration interface: %s: pool %s: roll, surge %d", request.who, name, surge)
        return json_response(find_pool(self._publisher.look().document, name), 202)

    def split(self, request: AdminRequest, id: str) -> Response:
        """Set weights of a route's split."""
        weights = request.body_as(_Split).weights
        config = configuration_of(self._segment)
        split = next((split for split in splits_of(config) if split.id == id), None) if config is not None else None
        if split is None:
            raise Problem(404, f"there is no route {id!r} that has a split")
        with self._steering() as steering:
            told = steering.set_split(split, weights, _who(request), request.expectation())
        log.info("administration interface: %s: split of the route %d (%s): %s", request.who, split.place, split.asks,
                 told or "as it was")
        shown = find_split(self._publisher.look().document, id)
        return json_response(shown, headers={"ETag": shown["etag"]})

    def reload(self, request: AdminRequest) -> Response:
        """Let gunicorn's master read the configuration anew, if the file is good."""
        request.expect_json_if_any()
        generation = self._publisher.newest.document["generation"]
        with self._locking() as ledger:
            try:
                reload(self._segment, ledger, _who(request))
            except ReloadRefused as exc:
                raise Problem(409, str(exc)) from exc
        log.info("administration interface: %s: reload", request.who)
        return json_response({"generation": generation}, 202)

    def _shown(self, name: str, address: str) -> Response:
        """The server as it is now."""
        server = find_server(self._publisher.look().document, name, address)
        return json_response(server, headers={"ETag": server["etag"]})

    @contextmanager
    def _steering(self) -> Iterator[Steering]:
        """Raises Problem for what the steering refuses."""
        with self._locking() as ledger:
            states = States(self._segment)
            try:
                yield Steering(self._segment, ledger, states)
            except SteeringError as exc:
                raise Problem(_STATUSES[type(exc)], str(exc)) from exc
            finally:
                states.close()

    @contextmanager
    def _locking(self) -> Iterator[Ledger]:
        """One change at a time: when the ledger's lock is not free, one thread of this process waits for it and not all."""
        if not self._turn.acquire(timeout=_PATIENCE_S):
            raise Problem(503, "another change waits for the ledger's lock, which a process holds that does not run; the error "
                          "log names it", headers={"Retry-After": "5"})
        try:
            if self._ledger is None:
                self._ledger = Ledger(self._segment, takes_row=False)
            yield self._ledger
        finally:
            self._turn.release()


def _who(request: AdminRequest) -> str:
    return request.caller.name if request.caller is not None else ""


def _log(request: AdminRequest, pool: str, address: str, what: str) -> None:
    log.info("administration interface: %s: server %s of the pool %s: %s", request.who, address, pool, what)
