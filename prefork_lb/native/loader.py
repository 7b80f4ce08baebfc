"""Loads the modules in C. They are optional: without them a request costs some microseconds more."""
from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from prefork_lb.native import translated
from prefork_lb.native.switches import is_pure

log = logging.getLogger("prefork_lb")

MODULES = ("chunks", "claims", "heads", "loop", "tally")


class NativeClaims(Protocol):
    """A worker's row of the ledger."""

    def release(self, slot: int, failed: bool) -> bool:
        """Release one claim. False, and nothing changed, when another process has the lock or there is no claim."""


class NativeAnswers(Protocol):
    """How long the servers of one pool take to answer."""

    def release(self, slot: int, failed: bool, begun: int, now: int, ending: int) -> bool:
        """Take a claim back whose answer was awaited until now; False, with nothing done, when Python must decide."""

    def end(self, slot: int, failed: bool, begun: int, now: int, ending: int) -> bool:
        """The head of a response has come; the claim stays. False, with nothing done, when Python must decide."""


class FastClaims(Protocol):
    """Claims on the servers of one pool. `now`, microseconds of the monotonic clock, counts where there are NativeAnswers."""

    def claim(self, now: int) -> int:
        """Pick a server and count the claim: its index. -1, with nothing done, when Python must decide."""

    def claim_at(self, index: int, now: int) -> bool:
        """Count a claim on this server, the one of a session. False, with nothing done, when that is for the Python to do."""


class NativeRates(Protocol):
    """Limits of a rate, `shared.rate_table`."""

    def take(self, key: int, interval_ns: int, ahead_ns: int, now_ns: int) -> int:
        """As `RateTable.take`. -1, with nothing done, when Python must count."""


class Native(Protocol):
    """One of the compiled modules, `claims.c`."""

    MOST_SERVERS: int  # of one LeastConnections

    def Claims(self, memory: memoryview, lock_byte: int, totals: memoryview, claims: memoryview,
               requests: memoryview, failures: memoryview, penalties: memoryview,
               recover: Callable[[int], None]) -> NativeClaims: ...

    def LeastConnections(self, claims: NativeClaims, servers: Sequence[tuple[int, int, int]], pool: memoryview,
                         last: memoryview, finish: memoryview, unit: int, memory_rounds: int,
                         idle_cell: int, changes_cell: int, seen: int, answers: NativeAnswers | None) -> FastClaims: ...

    def Answers(self, claims: NativeClaims, pool: memoryview, level: memoryview, heard: memoryview, picked: memoryview,
                back: memoryview, totals: memoryview, waiting: memoryview, pool_cell: int, weight: int, pool_weight: int,
                noise: int, failure: int) -> NativeAnswers: ...

    def Rates(self, claims: NativeClaims, first: int, sets: int, in_set: int) -> NativeRates: ...


class NativeSection(Mapping[bytes, list[bytes]]):
    """The fields of a head: values by name in lower case. Objects are made of what is asked for, and each time anew.

    It tells what `heads.Section` is, which has no base class in Python.
    """

    notable: int  # which of `wire.head.NOTABLE` it has: the bits of their places
    length: int  # the one Content-Length, in bytes; -1: none, several, or no number
    fields: list[tuple[bytes, bytes]]  # names as they came, and values without surrounding blanks, in order

    def join(self, travels: dict[bytes, bool], before: bytes, behind: bytes, /) -> bytes | None:
        """The lines of the fields whose names are True in `travels`, between two pieces; None when a name is not in it."""

    def without(self, names: frozenset[bytes], either_spelling: bool, /) -> NativeSection:
        """As `wire.head.FieldSection.without`."""
        raise NotImplementedError


class NativeHeads(Protocol):
    """The compiled module of heads, `heads.c`. What reads gives None for a head that Python must read."""

    Section: type[NativeSection]

    def use(self, request_head: type, response_head: type, /) -> None:
        """Make heads of these classes: `wire.head.RequestHead` and `ResponseHead`."""

    def read_request(self, block: bytes, most_bytes: int, most_fields: int, /) -> Any:
        """The RequestHead of a whole head, with lines of `most_bytes` at most. If it has Connection, `is_persistent`
        is not set."""

    def read_response(self, block: bytes, most_bytes: int, most_fields: int, /) -> Any:
        """The ResponseHead of a whole head, likewise."""

    def plain_path(self, target: bytes, /) -> int:
        """As `routing.path.plain_path`."""

    def join_fields(self, fields: list[tuple[bytes, bytes]], travels: dict[bytes, bool]) -> bytes | None:
        """The lines of the fields whose names are True in `travels`; None when a name is not in it, or a byte is invalid."""


class NativeChunks(Protocol):
    """The compiled module of the chunked coding, `chunks.c`."""

    def join_chunks(self, data: bytes, position: int) -> tuple[bytes, int]:
        """The content of the consecutive whole chunks from `position` on, and the position behind them."""


class CountAnswer(Protocol):
    """Counts an answer: `prefork_lb.shared.statistics.Tally.count_answer`."""

    def __call__(self, slot: int, pool: int, status: int, received: int, sent: int, seconds: float, /) -> None: ...


class NativeCounts(Protocol):
    """A worker's block of the statistics."""

    count_answer: CountAnswer


class NativeTally(Protocol):
    """The compiled module of the statistics, `tally.c`."""

    def Tally(self, block: memoryview, servers: tuple[int, int], pools: tuple[int, int], server: tuple[int, int, int],
              pool: tuple[int, int], bounds_s: tuple[float, ...]) -> NativeCounts: ...


class NativeRounds(Protocol):
    """What `green.rounds.Rounds` is."""

    def collect(self, wait_s: float, most: int, /) -> int: ...

    def deliver(self) -> None: ...


class NativeLoop(Protocol):
    """The compiled module of the hub's rounds and of streams on plain sockets, `loop.c`."""

    Channel: type  # has the attributes of a `green.channel.Channel`, and operations of a `green.streams.GreenStream`

    def Rounds(self, epoll: int, channels: dict[int, Any], watchers: dict[int, Callable[[], None]], /) -> NativeRounds: ...

    def accept(self, listener: int, /) -> tuple[int, str, int] | None:
        """Take a client of this listening descriptor: its own one, which does not block, and its host and port."""

    def use(self, stream_closed: type[Exception], stream_timeout: type[Exception], getcurrent: Callable[[], Any], /) -> None:
        """Set what streams need of Python, before the first stream."""


def native() -> Native | None:
    """The compiled module of the ledger; None where it was not built, or is not wanted."""
    module: Native | None = _load("prefork_lb.native.claims")
    return module


def native_heads() -> NativeHeads | None:
    """The compiled module of heads; None where it was not built, or is not wanted."""
    module: NativeHeads | None = _load("prefork_lb.native.heads")
    return module


def native_chunks() -> NativeChunks | None:
    """The compiled module of the chunked coding; None where it was not built, or is not wanted."""
    module: NativeChunks | None = _load("prefork_lb.native.chunks")
    return module


def native_tally() -> NativeTally | None:
    """The compiled module of the statistics; None where it was not built, or is not wanted."""
    module: NativeTally | None = _load("prefork_lb.native.tally")
    return module


def native_loop() -> NativeLoop | None:
    """The compiled module of the loop; None where it was not built, or is not wanted."""
    module: NativeLoop | None = _load("prefork_lb.native.loop")
    return module


def compiled() -> bool:
    """Whether this process has every compiled module, those of mypyc among them."""
    return translated.in_use() and all(_load(f"prefork_lb.native.{name}") is not None for name in MODULES)


_told: set[str] = set()  # modules that the log has named as broken


def _load(name: str) -> Any:
    if is_pure():
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # not built: there was no compiler
        return None
    except ImportError as exc:
        if name not in _told:
            _told.add(name)
            log.warning("%s cannot be loaded, the Python does its work: %s", name, exc)
        return None
