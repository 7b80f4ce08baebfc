"""The state file: what operators have set, for the instance after a restart."""
from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import slots_by_key


def save(path: Path, segment: Segment, states: States) -> None:
    """Write the states and weights that operators have set. Whole or not at all. Raises OSError."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for (pool, address), slot in slots_by_key(segment).items():
        entry: dict[str, object] = {}
        if states.admin[slot]:
            entry["state"] = Admin(states.admin[slot]).name.lower()
        if states.weight_set[slot]:
            entry["weight"] = states.weight_set[slot]
        if entry:
            found.setdefault(pool, {})[address] = entry
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"version": 1, "written": int(time.time()), "pools": found}, indent=1) + "\n")
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
            told = json.loads(path.read_text())
            age_s = time.time() - told["written"]
            if not 0 <= age_s <= max_age_s:
                return f"{path}: not believed: it was written {age_s:.0f} s ago, more than {max_age_s:g} s (state.max_age)"
            entries = [(pool, address, Admin[entry.get("state", "ready").upper()], int(entry.get("weight", 0)))
                       for pool, servers in told["pools"].items() for address, entry in servers.items()]
        except FileNotFoundError:
            return ""
        except OSError as exc:
            return f"{path}: cannot be read: {exc.strerror}; every server is ready"
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            return f"{path}: not a state file: {exc!r}; every server is ready"
        slots = slots_by_key(segment)
        known = [(slots[pool, address], state, weight) for pool, address, state, weight in entries if (pool, address) in slots]
        for slot, state, weight in known:
            states.set_admin(slot, state)
            states.set_weight(slot, max(0, weight))
        return f"{path}: {len(known)} of {len(entries)} states taken over" if entries else ""
