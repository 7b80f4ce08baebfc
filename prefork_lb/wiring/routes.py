"""From the routes of a configuration to the objects that find and serve them."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from prefork_lb.clock import Clock
from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.current import path_of, secrets_in
from prefork_lb.config.filter_rules import filter_key
from prefork_lb.config.model import Config
from prefork_lb.config.routes import FieldChangesConfig, RateConfig, RespondConfig, RouteConfig, route_in_words, route_number
from prefork_lb.errors import ConfigError, InvariantError
from prefork_lb.net.networks import LiesIn, lies_in
from prefork_lb.routing.actions import (
    NO_CHANGES,
    Actions,
    Answer,
    FieldChanges,
    Limiter,
    field_changes,
    of_requests,
    redirecting,
    responding,
    responding_from,
)
from prefork_lb.routing.guards import Guard
from prefork_lb.routing.limit_keys import limit_key_finder
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.template import Template
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rate_table import LimitKeys, RateTable
from prefork_lb.shared.rate_uses import ToldUses
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import RouteWeights
from prefork_lb.upstream.rate_limit import RateLimit
from prefork_lb.wiring.serving import WeightsOf, make_serving

MakeLimiter = Callable[[RouteConfig, RateConfig], Limiter]
MakeGuards = Callable[[RouteConfig], Sequence[Guard]]


def make_router(config: Config, make_limiter: MakeLimiter | None = None, make_guards: MakeGuards | None = None,
                weights: WeightsOf | None = None) -> Router:
    """The routes of a configuration; without `make_limiter` no rate is limited, without `make_guards` requests have nothing to
    pass, and without `weights` splits go by the configuration alone.

    Raises ConfigError when a file of an answer cannot be read.
    """
    return Router(_routes(config, make_limiter, make_guards, weights), config.proxy.doubtful_paths == "pass",
                  lies_in(config.proxy.trusted_proxies))


def limiters(config: Config, segment: Segment, ledger: Ledger, clock: Clock) -> MakeLimiter | None:
    """Makes limits of a rate in the memory of an instance; None when that has no room for them. Raises ConfigError."""
    if not segment.layout.rates:
        return None
    cluster = config.cluster if segment.layout.rate_uses else None
    table = RateTable(segment, ledger, ToldUses(segment) if cluster is not None else None)
    secret = limit_secret(cluster, config.source, segment)

    def make(route: RouteConfig, rate: RateConfig) -> Limiter:
        # By its words: a reload that leaves the route as it is leaves its counts, too.
        name = f"{route_in_words(route)}\n{rate.key}\n{rate.per_second}\n{rate.burst}"
        keys = LimitKeys(secret, name)
        return RateLimit(table, keys, limit_key_finder(rate.key), rate.per_second, rate.burst, clock).of_request

    return make


def limit_secret(cluster: ClusterConfig | None, source: str, segment: Segment) -> bytes:
    """What hashes the keys of limits: the same in all balancers that share. Without a file keys could be guessed to collide in
    the table, which frees none that is at its limit. `source` is the configuration's file. Raises ConfigError."""
    if cluster is None:
        return segment.secret
    try:
        secret = secrets_in(cluster.secret_file)[0] if cluster.secret_file else cluster.name.encode()
    except ValueError as exc:  # it was checked with the configuration; the file has changed since
        raise ConfigError([f"{source}: cluster.secret_file: {exc}"]) from exc
    return hashlib.blake2b(secret, digest_size=32).digest()


def weights_of(segment: Segment, ledger: Ledger) -> WeightsOf:
    """Finds the weights that operators set in an instance."""
    return lambda route: RouteWeights(segment, ledger, route_number(route))


def _routes(config: Config, make_limiter: MakeLimiter | None, make_guards: MakeGuards | None,
            weights: WeightsOf | None) -> list[Route]:
    routes = [Route(next(iter(route.split), route.pool), route.hosts, route.paths, route.methods, route.fields, route.cookies,
                    route.query, route.clients, route.scheme,
                    _actions(config, index, route, make_limiter, make_guards),
                    make_serving(route, f"{config.source}: routes[{index}]", weights), tuple(map(filter_key, route.filters)))
              for index, route in enumerate(config.routes)]
    if not routes:
        if len(config.pools) != 1:
            raise InvariantError("several pools and no route: the configuration's check lets no such file pass")
        routes = [Route(next(iter(config.pools)))]
    return routes


def _actions(config: Config, index: int, route: RouteConfig, make_limiter: MakeLimiter | None,
             make_guards: MakeGuards | None) -> Actions | None:
    answer: Answer | None = None
    if route.redirect:
        answer = redirecting(route.redirect, route.redirect_status)
    elif route.respond is not None:
        answer = _responding(route.respond, f"{config.source}: routes[{index}].respond")
    path = Template(route.path) if route.path else None
    limit = make_limiter(route, route.rate) if route.rate is not None and make_limiter is not None else None
    request = of_requests(_changes(route.request), _fields_of_guards(route))
    actions = Actions(_may_come(route), answer, path, request, _changes(route.response), route.body_limit, limit,
                      tuple(make_guards(route)) if make_guards is not None else ())
    return actions if actions != Actions() else None


def _fields_of_guards(route: RouteConfig) -> list[str]:
    """The fields that guards write for the server, which no client may write."""
    basic, forward = route.basic_auth, route.forward_auth
    return [*([basic.field] if basic is not None and basic.field else []), *(forward.fields if forward is not None else ())]


def _may_come(route: RouteConfig) -> LiesIn | None:
    if not route.allow and not route.deny:
        return None
    is_allowed, is_denied = lies_in(route.allow), lies_in(route.deny)
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
            body = Path(path_of(respond.file)).read_bytes()
        except OSError as exc:
            raise ConfigError([f"{place}.file: {respond.file}: {exc.strerror}"]) from exc
    return responding(respond.status, fields, body)
