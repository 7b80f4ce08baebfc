"""Times and rates as commands write them."""
from __future__ import annotations


def ago(seconds: float | None) -> str:
    """How long ago something was; "-" for never."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s ago" if seconds < 10 else f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"


def rate(a_second: float | None) -> str:
    """A rate; "-" when it is not known."""
    if a_second is None:
        return "-"
    return f"{a_second:.1f}/s" if a_second < 100 else f"{a_second:.0f}/s"
