"""The splits of an instance's routes: what the configuration says, and what operators have set."""
from __future__ import annotations

from prefork_lb.config.model import Config
from prefork_lb.config.routes import route_in_words, route_number
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import ConfiguredSplit, SplitView, set_weights, weights_in_force


def splits_of(config: Config) -> list[ConfiguredSplit]:
    """The splits of a configuration."""
    return [ConfiguredSplit(route_number(route), place, route_in_words(route), route.split_cookie, route.split)
            for place, route in enumerate(config.routes, 1) if route.split]


def splits_in_force(segment: Segment, config: Config) -> list[SplitView]:
    """The splits as they are at this moment. Needs no lock."""
    set_ones = set_weights(segment)
    return [SplitView(split, weights_in_force(split.weights, set_ones.get(split.route, {}))) for split in splits_of(config)]
