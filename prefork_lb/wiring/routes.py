"""From the routes of a configuration to the objects that find and serve them."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefork_lb.config import Config
from prefork_lb.config.routes import FieldChangesConfig, RespondConfig, RouteConfig
from prefork_lb.errors import ConfigError, InvariantError
from prefork_lb.routing.actions import (
    NO_CHANGES,
    Actions,
    Answer,
    FieldChanges,
    field_changes,
    redirecting,
    responding,
    responding_from,
)
from prefork_lb.routing.conditions import client_test
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.template import Template
from prefork_lb.wiring.trust import trust_check


def make_router(config: Config) -> Router:
    """The routes of a configuration. Raises ConfigError when a file of an answer cannot be read."""
    return Router(make_routes(config), config.proxy.doubtful_paths == "pass", trust_check(config.proxy.trusted_proxies))


def make_routes(config: Config) -> list[Route]:
    """The same as a list, in the order of the file."""
    routes = [Route(route.pool, route.hosts, route.paths, route.methods, route.fields, route.cookies, route.query, route.clients,
                    route.scheme, _actions(config, index, route))
              for index, route in enumerate(config.routes)]
    if not routes:
        if len(config.pools) != 1:
            raise InvariantError("several pools and no route: the configuration's check lets no such file pass")
        routes = [Route(next(iter(config.pools)))]
    return routes


def _actions(config: Config, index: int, route: RouteConfig) -> Actions | None:
    answer: Answer | None = None
    if route.redirect:
        answer = redirecting(route.redirect, route.redirect_status)
    elif route.respond is not None:
        answer = _responding(route.respond, f"{config.source}: routes[{index}].respond")
    path = Template(route.path) if route.path else None
    actions = Actions(_may_come(route), answer, path, _changes(route.request), _changes(route.response), route.body_limit)
    return actions if actions != Actions() else None


def _may_come(route: RouteConfig) -> Callable[[str], bool] | None:
    if not route.allow and not route.deny:
        return None
    is_allowed, is_denied = client_test(route.allow), client_test(route.deny)
    return lambda client: not is_denied(client) and (not route.allow or is_allowed(client))


def _changes(changes: FieldChangesConfig | None) -> FieldChanges:
    return NO_CHANGES if changes is None else field_changes(changes.set, changes.add, changes.remove)


def _responding(respond: RespondConfig, place: str) -> Answer:
    fields = [(b"Content-Type", respond.type.encode()),
              *((name.encode(), value.encode()) for name, value in respond.fields.items())]
    if respond.folder:
        return responding_from(respond.folder, fields)
    body = respond.body.encode()
    if respond.file:
        try:
            body = Path(respond.file).read_bytes()
        except OSError as exc:
            raise ConfigError([f"{place}.file: {respond.file}: {exc.strerror}"]) from exc
    return responding(respond.status, fields, body)
