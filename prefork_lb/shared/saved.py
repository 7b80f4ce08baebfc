"""The state file: what operators have set, for the instance after a restart."""
from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import slots_by_key


class _Entry(msgspec.Struct, omit_defaults=True):
    state: Literal["ready", "drain", "maintenance"] = "ready"
    weight: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0  # 0: that of the configuration


class _File(msgspec.Struct):
    version: Literal[1]
    written: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]  # seconds since the epoch
    pools: dict[str, dict[str, _Entry]]


def save(path: Path, segment: Segment, states: States) -> None:
    """Write the states and weights that operators have set. Whole or not at all. Raises OSError."""
    told = _File(1, int(time.time()), {})
    for (pool, address), slot in slots_by_key(segment).items():
        if states.admin[slot] or states.weight_set[slot]:
            entry = msgspec.convert(
                {"state": Admin(states.admin[slot]).name.lower(), "weight": states.weight_set[slot]}, _Entry)
            told.pools.setdefault(pool, {})[address] = entry
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # What a dead process of this pid left goes, and a link of another's is not followed.
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def restore(path: Path, max_age_s: float, segment: Segment, ledger: Ledger, states: States) -> str:
    """Take over what the file says, once for an instance; what came of it, in words, empty if there was nothing to do.

    Servers that are not in the table, and a file older than `max_age_s`, are passed over.
    """
    with ledger.locked():
        if segment.cells[at.H_RESTORED]:
            return ""
        segment.cells[at.H_RESTORED] = 1
        try:
            told = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            return ""
        except OSError as exc:
            return f"{path}: cannot be read: {exc.strerror}; every server is ready"
        except (msgspec.MsgspecError, RecursionError) as exc:
            return f"{path}: not a state file: {exc}; every server is ready"
        age_s = time.time() - told.written
        if not 0 <= age_s <= max_age_s:
            return f"{path}: not believed: it was written {age_s:.0f} s ago, more than {max_age_s:g} s (state.max_age)"
        entries = [(pool, address, entry) for pool, servers in told.pools.items() for address, entry in servers.items()]
        slots = slots_by_key(segment)
        known = [(slots[pool, address], entry) for pool, address, entry in entries if (pool, address) in slots]
        for slot, entry in known:
            states.set_admin(slot, Admin[entry.state.upper()])
            states.set_weight(slot, entry.weight)
        return f"{path}: {len(known)} of {len(entries)} states taken over" if entries else ""
