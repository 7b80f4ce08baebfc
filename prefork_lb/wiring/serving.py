"""From the keys of a route to how its requests are served."""
from __future__ import annotations

import random

from prefork_lb.config.routes import RouteConfig
from prefork_lb.routing.mirror import Mirror
from prefork_lb.routing.serving import Serving
from prefork_lb.routing.split import Split


def make_serving(route: RouteConfig) -> Serving | None:
    """None: by the route's pool alone."""
    # By chance, so that workers are out of step with each other.
    split = Split(route.split, route.split_cookie, random.getrandbits(32)) if route.split else None
    mirror = Mirror(route.mirror.pool, route.mirror.share, random.getrandbits(32)) if route.mirror is not None else None
    serving = Serving(split, route.failover, mirror)
    return serving if serving != Serving() else None
