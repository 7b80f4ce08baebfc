"""How long servers take for a request: distributions, and times as people write them."""
from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

Draw = Callable[[random.Random], float]
"""Draws how long a request takes, in seconds."""

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(s|ms|us|m|h|)")
_LONGEST_S = 1e7
_LEAST_MEAN_S, _MOST_MEAN_S = 1e-6, 86400.0


def parse_seconds(text: str) -> float:
    """Seconds from text such as "30ms", "1.5s" or "0.03". Raises ValueError."""
    found = _TIME.fullmatch(text)
    if found is None or (seconds := float(found[1]) * _UNITS[found[2]]) > _LONGEST_S:
        raise ValueError(f"{text!r} is no time; expected a number with us, ms, s, m or h behind it")
    return seconds


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """A distribution of service times."""

    text: str  # as it was described
    mean_s: float
    draw: Draw


def parse_service_times(text: str) -> ServiceTimes:
    """A distribution from text: "constant:30ms", "exponential:30ms", "lognormal:30ms,1.0" (mean; sigma of the logarithm) or
    "pareto:30ms,2.5" (mean; exponent, above 1). Raises ValueError."""
    kind, _, numbers = text.partition(":")
    mean_text, _, shape_text = numbers.partition(",")
    if kind not in _KINDS or not mean_text:
        raise ValueError(f'{text!r}: expected "constant:TIME", "exponential:TIME", "lognormal:TIME,SIGMA" or '
                         '"pareto:TIME,EXPONENT"')
    mean_s = parse_seconds(mean_text)
    if not _LEAST_MEAN_S <= mean_s <= _MOST_MEAN_S:
        raise ValueError(f"{text!r}: the mean must be from 1us to 24h")
    make, default, least = _KINDS[kind]
    if shape_text and default is None:
        raise ValueError(f"{text!r}: {kind} has a mean only")
    try:
        shape = float(shape_text) if shape_text else default or 0.0
    except ValueError:
        shape = math.nan
    if default is not None and not least < shape <= 100:
        raise ValueError(f"{text!r}: {shape_text!r} is not a number above {least:g}, at most 100")
    return ServiceTimes(text, mean_s, make(mean_s, shape))


def _constant(mean_s: float, _: float) -> Draw:
    return lambda rng: mean_s


def _exponential(mean_s: float, _: float) -> Draw:
    rate = 1 / mean_s
    return lambda rng: rng.expovariate(rate)


def _lognormal(mean_s: float, sigma: float) -> Draw:
    mu = math.log(mean_s) - sigma * sigma / 2
    return lambda rng: rng.lognormvariate(mu, sigma)


def _pareto(mean_s: float, exponent: float) -> Draw:
    least_s = mean_s * (exponent - 1) / exponent
    return lambda rng: least_s * rng.paretovariate(exponent)


_KINDS: dict[str, tuple[Callable[[float, float], Draw], float | None, float]] = {
    "constant": (_constant, None, 0.0), "exponential": (_exponential, None, 0.0), "lognormal": (_lognormal, 1.0, 0.0),
    "pareto": (_pareto, 2.5, 1.0),
}
"""For each kind what makes it, its default shape (None: it has none), and what the shape must exceed."""
