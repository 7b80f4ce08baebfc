"""Counting what is called: a measure of work that no other load on the machine changes."""
import gc
import sys
from collections.abc import Callable


def calls_of(work: Callable[[], object]) -> int:
    """How many functions (in Python and C) `work` calls.

    The garbage collector waits: it would come in the middle of the work, and its callbacks (hypothesis has one) would be counted.
    """
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    collects = gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        if collects:
            gc.enable()
    return count
