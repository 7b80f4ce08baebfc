"""From a route of a configuration to the guards that its requests have to pass."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.access.basic import BasicAuth, verify
from prefork_lb.access.certificate import require_certificate
from prefork_lb.access.forward import ForwardAuth
from prefork_lb.clock import monotonic
from prefork_lb.config.access import BasicAuthConfig
from prefork_lb.config.current import passwords_in
from prefork_lb.config.model import Config
from prefork_lb.config.routes import RouteConfig, route_in_words
from prefork_lb.errors import ConfigError
from prefork_lb.proxy.attempt import AttemptSettings
from prefork_lb.proxy.own_requests import OwnRequests
from prefork_lb.routing.guards import Guard
from prefork_lb.routing.limit_keys import limit_key_finder
from prefork_lb.shared.key_claims import KeyClaims
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rate_table import LimitKeys
from prefork_lb.shared.segment import Segment
from prefork_lb.upstream.concurrency_limit import Concurrency
from prefork_lb.upstream.runtime import Runtime
from prefork_lb.wiring.routes import MakeGuards, limit_secret


def guards(config: Config, segment: Segment, ledger: Ledger, runtime: Runtime, settings: AttemptSettings) -> MakeGuards:
    """Makes the guards of routes, those first that cost least. Raises ConfigError."""
    claims = KeyClaims(segment, ledger) if segment.layout.keys else None
    secret = limit_secret(config.cluster, config.source, segment) if claims is not None else b""

    def make(route: RouteConfig) -> Sequence[Guard]:
        found: list[Guard] = [require_certificate] if route.client_certificate else []
        if route.concurrency is not None and claims is not None:
            key = route.concurrency.key
            # Without the limit: a reload that changes it goes on with what is in flight.
            keys = LimitKeys(secret, f"{route_in_words(route)}\nconcurrency\n{key}")
            found.append(Concurrency(claims, keys, limit_key_finder(key), route.concurrency.limit))
        if route.basic_auth is not None:
            found.append(_basic(route.basic_auth, runtime))
        if (forward := route.forward_auth) is not None:
            found.append(ForwardAuth(OwnRequests(settings), forward.url, forward.fields, forward.timeout, forward.cache,
                                     monotonic))
        return found

    return make


def _basic(basic: BasicAuthConfig, runtime: Runtime) -> BasicAuth:
    try:
        users = passwords_in(basic.file)
    except ValueError as exc:
        raise ConfigError([f"basic_auth.file: {exc}"]) from exc
    return BasicAuth(users, basic.realm, basic.field, runtime.compute, monotonic, verify)
