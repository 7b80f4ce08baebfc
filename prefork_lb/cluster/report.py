"""What a balancer tells the others at each exchange, as bytes. Versions that do not understand one another do not share."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

VERSION = 1

Key = tuple[str, str]
"""A server: its pool and its address."""


_Cell = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Count = Annotated[int, Meta(ge=0, le=1 << 31)]
_Limit = Annotated[int, Meta(ge=1, le=1 << 31)]
_Used = Annotated[int, Meta(ge=0, le=1 << 52)]


class Setting(Struct, array_like=True, frozen=True):
    """What operators have set for a server."""

    pool: str
    address: str
    admin: int
    weight: int  # 0: that of the configuration
    limit: int  # -1: that of the configuration
    stamp: int  # when, in milliseconds of the store's clock


class SplitSetting(Struct, array_like=True, frozen=True):
    """The weights of a route's split that operators have set; pools that are not there have those of the configuration."""

    route: int
    weights: dict[str, int]
    stamp: int  # as of a Setting


class Ejected(Struct, array_like=True, frozen=True):
    """A server that this balancer has ejected."""

    pool: str
    address: str
    number: int  # counts this balancer's ejections of this server
    left_ms: int


class Report(Struct, array_like=True, frozen=True):
    """One of them. It counts as new when `run` or `number` is another one than before: no clock of another host is looked at."""

    version: int
    balancer: str
    run: int  # random; another one after a restart
    number: int
    table: bytes  # the digest of the servers that the numbers below stand for, in this order
    in_flight: list[int]
    needs: list[int]  # of servers with a limit the requests in flight and in the queue, rounded up; 0 for others
    round_us: int
    can_check: bool
    checks: int  # the number of its newest list of results; 0: it tells none
    settings: list[Setting]
    ejected: list[Ejected]
    rates: list[tuple[_Cell, _Used]] = []  # by key of a limit, microseconds of its rate that were used here
    splits: list[SplitSetting] = []
    keys: list[tuple[_Cell, _Count, _Limit]] = []  # by key of a limit: requests in flight here, and the limit


class Checked(Struct, array_like=True, frozen=True):
    """The result of a server's checks."""

    pool: str
    address: str
    state: int
    note: str


class Results(Struct, array_like=True, frozen=True):
    """Those of one balancer; the number is the report's `checks`."""

    balancer: str
    run: int
    number: int
    checked: list[Checked]


def encode_report(report: Report) -> bytes:
    """As the store keeps it."""
    return msgspec.msgpack.encode(report)


def decode_report(data: bytes) -> Report | None:
    """None: another version wrote it."""
    try:
        report = msgspec.msgpack.decode(data, type=Report)
    except msgspec.MsgspecError:
        return None
    return report if report.version == VERSION else None


def encode_keys(keys: Sequence[Key]) -> bytes:
    """Servers in their order, as the store keeps them."""
    return msgspec.msgpack.encode(list(keys))


def decode_keys(data: bytes) -> list[Key] | None:
    """None: that is no list of servers."""
    try:
        return msgspec.msgpack.decode(data, type=list[Key])
    except msgspec.MsgspecError:
        return None


def digest(keys: bytes) -> bytes:
    """Stands for a list of servers."""
    return hashlib.blake2b(keys, digest_size=12).digest()


def encode_results(results: Results) -> bytes:
    """As the store keeps it."""
    return msgspec.msgpack.encode(results)


def decode_results(data: bytes) -> Results | None:
    """None: another version wrote it."""
    try:
        return msgspec.msgpack.decode(data, type=Results)
    except msgspec.MsgspecError:
        return None
