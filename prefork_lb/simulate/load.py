"""Loads: the moments at which requests come, and how long each takes."""
from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prefork_lb.simulate.service_times import ServiceTimes

_CLIENTS = 1000  # of a described load; the n-th is n times rarer than the first (Zipf)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one run, in the order in which they come; times are seconds from the beginning of the run."""

    arrivals: Sequence[float]
    services: Sequence[float]
    clients: Sequence[str]
    targets: Sequence[bytes]  # empty: they are all alike


class Load(Protocol):
    """A load that can be drawn again and again."""

    @property
    def requests(self) -> int: ...

    @property
    def mean_service_s(self) -> float: ...

    @property
    def rate(self) -> float:
        """Requests a second, on average."""

    def draw(self, seed: int) -> Requests:
        """The same for the same seed."""

    def as_dict(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class DescribedLoad:
    """Requests that come at random, `rate` a second on average, whatever the servers do (Poisson)."""

    rate: float
    service: ServiceTimes
    requests: int

    @property
    def mean_service_s(self) -> float:
        return self.service.mean_s

    def draw(self, seed: int) -> Requests:
        rng = random.Random(seed)
        arrivals, services = array("d", bytes(8 * self.requests)), array("d", bytes(8 * self.requests))
        now, rate, draw, expovariate = 0.0, self.rate, self.service.draw, rng.expovariate
        for number in range(self.requests):
            arrivals[number] = now = now + expovariate(rate)
            services[number] = draw(rng)
        names = [f"198.51.{number >> 8}.{number & 255}" for number in range(_CLIENTS)]
        clients = rng.choices(names, [1 / (number + 1) for number in range(_CLIENTS)], k=self.requests)
        return Requests(arrivals, services, clients, ())

    def as_dict(self) -> dict[str, object]:
        return {"rate": self.rate, "service": self.service.text, "requests": self.requests}


@dataclass(frozen=True, slots=True)
class ReplayedLoad:
    """Requests of an access log. `ends` are the moments that the log tells, in seconds from its beginning. The log may have no
    `durations`; `service` takes their place then."""

    ends: Sequence[float]
    durations: Sequence[float]
    clients: Sequence[str]
    targets: Sequence[bytes]
    is_whole_seconds: bool  # times have no fraction: each request is put somewhere into its second, by chance
    service: ServiceTimes | None
    speed: float = 1.0  # the log goes by so many times as fast

    @property
    def requests(self) -> int:
        return len(self.ends)

    @property
    def mean_service_s(self) -> float:
        if self.service is not None:
            return self.service.mean_s
        return sum(self.durations) / len(self.durations)

    @property
    def rate(self) -> float:
        span_s = (max(self.ends) - min(self.ends) + (1.0 if self.is_whole_seconds else 0.0)) / self.speed
        return len(self.ends) / span_s if span_s else float(len(self.ends))

    def draw(self, seed: int) -> Requests:
        rng = random.Random(seed)
        services = self.durations if self.service is None else [self.service.draw(rng) for _ in self.ends]
        ends = [end + rng.random() for end in self.ends] if self.is_whole_seconds else self.ends
        # A log tells when a request ended; it came so much earlier.
        begins = [end - duration for end, duration in zip(ends, self.durations, strict=True)] if self.durations else ends
        first = min(begins)
        order = sorted(range(len(begins)), key=begins.__getitem__)
        return Requests(array("d", [(begins[index] - first) / self.speed for index in order]),
                        array("d", [services[index] for index in order]), [self.clients[index] for index in order],
                        [self.targets[index] for index in order])

    def as_dict(self) -> dict[str, object]:
        return {"rate": round(self.rate, 3), "service": self.service.text if self.service else "of the log",
                "requests": len(self.ends), "speed": self.speed}
