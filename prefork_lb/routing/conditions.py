"""What a route can ask of a request besides its host and path: method, fields, cookies, parameters of the query, client."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from prefork_lb.net.networks import LiesIn, lies_in
from prefork_lb.routing.pattern import Matches, compile_pattern
from prefork_lb.wire.cookies import cookies
from prefork_lb.wire.forwarded import ClientInfo, client_scheme, told_client
from prefork_lb.wire.head import RequestHead
from prefork_lb.wire.query import parameters


class Asked:
    """A request as conditions see it."""

    __slots__ = ("head", "peer", "target")

    def __init__(self, head: RequestHead, target: bytes, peer: ClientInfo) -> None:
        self.head, self.peer = head, peer
        self.target = target  # in origin-form


Condition = Callable[[Asked], bool]


class Conditions(Protocol):
    """A route's conditions, as the configuration has them. A value is compared as it came; "*" is any, "~" begins a pattern."""

    @property
    def methods(self) -> Sequence[str]: ...
    @property
    def fields(self) -> Mapping[str, str]: ...
    @property
    def cookies(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def scheme(self) -> str: ...
    @property
    def clients(self) -> Sequence[str]: ...


Rank = tuple[int, list[str]]


def rank(route: Conditions) -> Rank:
    """The order of routes with the same host and path: the lower one comes first. Equal ones ask for the same."""
    found = [f"method {' '.join(sorted(set(route.methods)))}"] if route.methods else []
    if route.scheme:
        found.append(f"scheme {route.scheme}")
    found += [f"field {name.lower()}={value}" for name, value in route.fields.items()]
    found += [f"cookie {name}={value}" for name, value in route.cookies.items()]
    found += [f"query {name}={value}" for name, value in route.query.items()]
    if route.clients:
        found.append(f"client {' '.join(sorted(set(route.clients)))}")
    return -len(found), sorted(found)


def conditions(route: Conditions, is_trusted: LiesIn) -> list[Condition]:
    """The tests of a route, the cheap ones first. `is_trusted`: whether the proxy at an address is believed.

    Raises ValueError for a pattern or a network that is none.
    """
    found: list[Condition] = []
    if route.scheme:
        scheme = route.scheme.encode()
        found.append(lambda asked: client_scheme(asked.head.index, asked.peer) == scheme)
    if route.methods:
        methods = frozenset(method.encode() for method in route.methods)
        found.append(lambda asked: asked.head.method in methods)
    found += [_field(name, value) for name, value in route.fields.items()]
    found += [_cookie(name, value) for name, value in route.cookies.items()]
    found += [_parameter(name, value) for name, value in route.query.items()]
    if route.clients:
        is_inside = lies_in(route.clients)
        found.append(lambda asked: is_inside(told_client(asked.head.index, asked.peer.address, is_trusted)))
    return found


def _value_test(value: str) -> Matches:
    if value == "*":
        return lambda _: True
    if value.startswith("~"):
        return compile_pattern(value[1:])
    return value.encode().__eq__


def _field(name: str, value: str) -> Condition:
    wanted, key = _value_test(value), name.lower().encode()
    return lambda asked: any(map(wanted, asked.head.index.get(key, ())))


def _cookie(name: str, value: str) -> Condition:
    wanted, key = _value_test(value), name.encode()
    return lambda asked: any(map(wanted, cookies(asked.head.index.get(b"cookie", ()), key)))


def _parameter(name: str, value: str) -> Condition:
    wanted, key = _value_test(value), name.encode()
    return lambda asked: any(map(wanted, parameters(asked.target, key)))
