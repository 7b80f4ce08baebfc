"""Regular expressions on the way of a request, by RE2: its time grows with the text and never with tricks in it (Cox, "Regular
Expression Matching Can Be Simple And Fast", 2007). With Python's `re` one request could hold a worker for minutes."""
from __future__ import annotations

from collections.abc import Callable

Matches = Callable[[bytes], bool]
"""Whether a text has the pattern somewhere in it."""


def compile_pattern(pattern: str) -> Matches:
    """The test for a regular expression. Raises ValueError, in words, when it is none or RE2 is not installed."""
    try:
        import re2  # only who uses patterns needs the package
    except ImportError:
        raise ValueError("regular expressions need the package google-re2; install prefork_lb[re2]") from None
    options = re2.Options()
    options.log_errors = False
    try:
        search = re2.compile(pattern.encode(), options=options).search
    except re2.error as exc:
        reason = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"{pattern!r} is no regular expression for RE2: {reason}") from None
    return lambda text: search(text) is not None
