"""From the keys of a route to how its requests are served."""
from __future__ import annotations

import mimetypes
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from prefork_lb.config.current import path_of
from prefork_lb.config.model import Config
from prefork_lb.config.routes import CorsConfig, RouteConfig
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.errors import ConfigError
from prefork_lb.routing.cors import Cors
from prefork_lb.routing.https import Https
from prefork_lb.routing.mirror import Mirror
from prefork_lb.routing.serving import Bandwidth, Page, ServerTimeouts, Serving
from prefork_lb.routing.split import SetWeights, Split

WeightsOf = Callable[[RouteConfig], SetWeights]


def make_serving(route: RouteConfig, place: str, weights: WeightsOf | None = None) -> Serving | None:
    """None: by the route's pool alone, in the usual way. `place` is the route's in the configuration; without `weights` its
    split goes by the configuration alone.

    Raises ConfigError when an error page cannot be read.
    """
    # The starts are by chance, so that workers are out of step with each other.
    split = Split(route.split, route.split_cookie, random.getrandbits(32),
                  weights(route) if weights is not None else None) if route.split else None
    mirror = Mirror(route.mirror.pool, route.mirror.share, random.getrandbits(32)) if route.mirror is not None else None
    own = route.timeouts
    timeouts = ServerTimeouts(own.connect, own.response, own.idle) if own is not None else ServerTimeouts()
    limit = route.bandwidth
    serving = Serving(split, route.failover, mirror, timeouts, _pages(route.error_pages, place),
                      _cors(route.cors), Https(route.https.hsts, route.https.subdomains) if route.https is not None else None,
                      Bandwidth(limit.per_second, limit.after) if limit is not None else None)
    return serving if serving != Serving() else None


def check_for_sync(config: Config) -> None:
    """Raise ConfigError where gunicorn's sync workers cannot serve a route as it is configured."""
    problems = [f"{config.source}: routes[{index}].bandwidth: gunicorn's sync workers cannot keep it: gunicorn kills one "
                "when a response takes longer than `timeout`; use ProxyWorker, gthread or gevent"
                for index, route in enumerate(config.routes) if route.bandwidth is not None]
    if problems:
        raise ConfigError(problems)


def _cors(cors: CorsConfig | None) -> Cors | None:
    return None if cors is None else Cors(cors.origins, cors.methods, cors.fields, cors.exposed, cors.credentials, cors.max_age)


def _pages(files: Mapping[str, str], place: str) -> Mapping[int, Page]:
    found: dict[int, Page] = {}
    for key, file in sorted(files.items(), key=lambda entry: -len(entry[0])):  # ranges before single statuses, which win
        try:
            content = Path(path_of(file)).read_bytes()
        except OSError as exc:
            raise ConfigError([f"{place}.error_pages.{key}: {file}: {exc.strerror}"]) from exc
        kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        page = Page([(b"Content-Type", kind.encode())], content)
        found.update(dict.fromkeys(parse_statuses([key]), page))
    return found
