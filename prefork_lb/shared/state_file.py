"""The state file: what operators have set, and the servers that were added, kept over a restart.

That are states, weights and limits of servers, and weights of splits.

The controller writes it (`StateFile`) whenever its content changes, and now and then without a change: the time in the file
tells the next instance how long ago this one was alive. The first worker of an instance reads it, once (`restore`). Two
instances never write the same file (`saved_lock`).
"""
from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from prefork_lb.clock import Clock, monotonic
from prefork_lb.errors import SteeringError
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Changes, member
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import MOST_SPLIT_WEIGHT, id_of, set_weights, write_set_weights
from prefork_lb.shared.state_file_lock import Holder, describe, holder, take
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import MOST_CONNECTIONS, MOST_WEIGHT, AddedBy, ServerEntry, Standing
from prefork_lb.shared.table_lookup import slots_by_key

# Seconds between two writes when nothing has changed. A quarter of state.max_age is used when that is less.
_REFRESH_S = 60.0
_AGAIN_S = 2.0  # after a write that failed
_TELLS_AGAIN_S = 60.0
# For this long no error is logged when another controller has the lock: it may be the previous one, which is about to end.
_PATIENCE_S = 3.0
# A start waits for so long when the host has no descriptor or no memory left for a moment.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_TRIES, _TRY_AGAIN_S = 20, 0.5

log = logging.getLogger("prefork_lb")


class _Added(msgspec.Struct, omit_defaults=True):
    """The rules of a server that was added at run time. Scaling's are not kept: they end with the instance."""

    weight: Annotated[int, msgspec.Meta(ge=1, le=MOST_WEIGHT)] = 1
    max_connections: Annotated[int, msgspec.Meta(ge=0, le=MOST_CONNECTIONS)] = 0
    backup: bool = False
    source: Literal["operator", "discovery"] = "operator"


class _Entry(msgspec.Struct, omit_defaults=True):
    state: Literal["ready", "drain", "maintenance"] = "ready"
    weight: Annotated[int, msgspec.Meta(ge=0, le=MOST_WEIGHT)] = 0  # 0: that of the configuration
    max_connections: Annotated[int, msgspec.Meta(ge=0, le=MOST_CONNECTIONS)] | None = None  # None: that of the configuration
    added: _Added | None = None  # None: the configuration's


_Pools = dict[str, dict[str, _Entry]]
_Splits = dict[str, dict[str, Annotated[int, msgspec.Meta(ge=0, le=MOST_SPLIT_WEIGHT)]]]  # by route and pool


class _File(msgspec.Struct):
    version: Literal[1]
    written: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]  # seconds since the epoch
    pools: _Pools
    splits: _Splits = {}


class StateFile:
    """Writes one instance's state file when that is due, unless another instance writes it."""

    def __init__(self, path: Path, max_age_s: float, configuration: str, segment: Segment, states: States,
                 clock: Clock = monotonic) -> None:
        """A later instance accepts the file for `max_age_s`. Other instances name the path `configuration` in messages."""
        self.path = path
        self._refresh_s = min(_REFRESH_S, max_age_s / 4)
        self._configuration = configuration
        self._segment = segment
        self._states = states
        self._clock = clock
        self._lock = -1
        self._since = clock()
        self._changes = -1  # the states' count of changes when the file was last compared with them
        self._content: tuple[_Pools, _Splits] | None = None  # that was written last
        self._saved_at = 0.0
        self._tries_at = 0.0
        self._problem, self._told_at = "", 0.0

    def look(self) -> None:
        """Write the file if that is due. Call this a few times a second. A failure is logged, and the write is tried again."""
        now = self._clock()
        # Not before the first worker has read it.
        if now < self._tries_at or not self._segment.cells[at.H_RESTORED]:
            return
        if self._changes != self._states.changes or now - self._saved_at >= self._refresh_s:
            self._try(self._save_changed)

    def close(self) -> None:
        """Write the file a last time, so that it holds the time of the end, and release the lock."""
        if self._lock >= 0 and self._segment.cells[at.H_RESTORED]:
            self._content = None
            self._try(self._save_changed)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _save_changed(self) -> None:
        changes, now = self._states.changes, self._clock()
        content = _set_by_operators(self._segment, self._states), _split_weights(self._segment)
        if self._lock < 0:
            self._lock = take(self.path, Holder(os.getpid(), self._segment.cells[at.H_CONTROLLER_MASTER], self._configuration))
        # Most changes are of checks and ejections, which the file does not contain.
        if content != self._content or now - self._saved_at >= self._refresh_s:
            _write(self.path, *content)
            self._content, self._saved_at = content, now
        self._changes = changes

    def _try(self, save: Callable[[], None]) -> None:
        try:
            save()
        except BlockingIOError:
            if self._clock() - self._since >= _PATIENCE_S:
                self._tell(f"it is in use: {describe(holder(self.path))}; give each instance a file of its own")
        except OSError as exc:
            self._tell(_words(exc, self.path))
        else:
            if self._problem:
                log.warning("%s: the states are saved again", self.path)
            self._problem = ""

    def _tell(self, problem: str) -> None:
        now = self._clock()
        self._tries_at = now + _AGAIN_S
        if problem != self._problem or now - self._told_at >= _TELLS_AGAIN_S:
            self._problem, self._told_at = problem, now
            log.error("%s: states of servers are not saved, which is tried again every %g s: %s", self.path, _AGAIN_S, problem)


def restore(path: Path, max_age_s: float, segment: Segment, ledger: Ledger, states: States, routes: Collection[int] = ()) -> str:
    """Set the states and weights that the file holds, once for an instance. Returns a line for the log, "" when nothing was done.

    Adds the servers that were added before. Ignores others that are not in the table, weights of splits of other `routes`, and a
    file older than `max_age_s`.
    """
    if segment.cells[at.H_RESTORED]:
        return ""
    # Before the lock: a disk may hang, and all requests would wait for it.
    found = _read(path, max_age_s)
    with ledger.locked():
        if segment.cells[at.H_RESTORED]:  # another worker was faster
            return ""
        try:
            return found if isinstance(found, str) else _take_over(found, path, segment, ledger, states, routes)
        finally:
            # Last: if this worker is killed before, the next one reads the file again.
            segment.cells[at.H_RESTORED] = 1


def folder_problem(path: Path) -> str:
    """Why this user cannot write the file, in words; "" when no reason was found."""
    if path.is_dir():
        return "is a folder; expected the path of a file"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"the folder {path.parent} cannot be written to by this user"
    return ""


def _set_by_operators(segment: Segment, states: States) -> _Pools:
    pools: _Pools = {}
    slots = slots_by_key(segment)
    # In the order in which they came: so they are added again in this order.
    for (pool, address), slot in sorted(slots.items(), key=lambda item: states.moved[item[1]]):
        added, found = None, member(segment, slot, address)
        if found.standing is Standing.ADDED:
            if found.source is AddedBy.SCALING or states.leaving[slot]:
                continue
            rules = found.rules
            added = {"weight": rules.weight, "max_connections": rules.max_connections, "backup": rules.backup,
                     "source": found.source.name.lower()}
        limit = states.limit_set(slot)
        if states.admin[slot] or states.weight_set[slot] or limit is not None or added:
            entry = {"state": Admin(states.admin[slot]).name.lower(), "weight": states.weight_set[slot],
                     "max_connections": limit, "added": added}
            pools.setdefault(pool, {})[address] = msgspec.convert(entry, _Entry)
    return pools


def _split_weights(segment: Segment) -> _Splits:
    return {id_of(route): weights for route, weights in sorted(set_weights(segment).items())}


def _write(path: Path, pools: _Pools, splits: _Splits) -> None:
    content = msgspec.json.format(msgspec.json.encode(_File(1, int(time.time()), pools, splits))) + b"\n"
    # One name for all writers: only the holder of the state file's lock writes. So a kill in a write leaves one file at most.
    fresh = path.with_name(f".{path.name}.fresh")
    try:
        # Remove what a killed controller may have left. O_EXCL then refuses a link that another user has put there.
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power failure may leave an empty file under the new name
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _read(path: Path, max_age_s: float) -> _File | str:
    """What the file says; else why nothing of it is taken over, in words, empty if there is no file."""
    try:
        told = msgspec.json.decode(_content_in_time(path), type=_File)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        return f"{path}: cannot be read: {exc.strerror}; every server is ready"
    except (msgspec.MsgspecError, RecursionError) as exc:
        return f"{path}: not a state file: {exc}; every server is ready"
    age_s = time.time() - told.written
    if not 0 <= age_s <= max_age_s:
        when = f"{age_s:.0f} s ago, more than {max_age_s:g} s (state.max_age)" if age_s > 0 else f"{-age_s:.0f} s in the future"
        return f"{path}: not believed, every server is ready: it was written {when}"
    return told


def _content_in_time(path: Path) -> bytes:
    """The file's content. Raises OSError; a shortage that may pass must have lasted for a while.

    The states that were not read would be lost: the next write replaces the file.
    """
    for _ in range(_TRIES):
        try:
            return _content(path)
        except OSError as exc:
            if exc.errno not in _SHORTAGES:
                raise
            log.warning("%s: cannot be read, which is tried again: %s", path, exc.strerror)
        time.sleep(_TRY_AGAIN_S)
    return _content(path)


def _content(path: Path) -> bytes:
    # O_NONBLOCK: the open of a FIFO waits for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read()


def _take_over(told: _File, path: Path, segment: Segment, ledger: Ledger, states: States, routes: Collection[int]) -> str:
    entries = [(pool, address, entry) for pool, servers in told.pools.items() for address, entry in servers.items()]
    slots = slots_by_key(segment)
    for pool, address, entry in entries:
        if entry.added is not None and (pool, address) not in slots:
            rules = ServerEntry(address, entry.added.weight, entry.added.max_connections, entry.added.backup)
            try:
                source = AddedBy[entry.added.source.upper()]
                slots[pool, address] = Changes(segment, ledger, states, pool).add(rules, "state file", source)
            except SteeringError as exc:
                log.warning("%s: the server %s is not added again: %s", path, address, exc)
    known = [(slots[pool, address], entry) for pool, address, entry in entries if (pool, address) in slots]
    for slot, entry in known:
        states.set_admin(slot, Admin[entry.state.upper()])
        states.set_weight(slot, entry.weight)
        states.set_limit(slot, entry.max_connections)
    splits = {route: told.splits[id_of(route)] for route in routes if id_of(route) in told.splits}
    for route, weights in splits.items():
        write_set_weights(segment, route, weights)
    counts = [f"{taken} of {whole} {what}" for taken, whole, what in (
        (len(known), len(entries), "states"), (len(splits), len(told.splits), "splits with weights that were set")) if whole]
    return f"{path}: {' and '.join(counts)} taken over" if counts else ""


def _words(exc: OSError, path: Path) -> str:
    """What failed, with the file's name where it is not `path`: the lock's, or that of the fresh file."""
    name = f"{exc.filename}: " if exc.filename and Path(exc.filename) != path else ""
    return f"{name}{exc.strerror or exc}"
