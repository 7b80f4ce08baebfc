"""Regular expressions by RE2."""
from __future__ import annotations

import sys

import pytest

from prefork_lb.routing.pattern import compile_pattern


def test_a_pattern_is_found_anywhere_in_the_text() -> None:
    ends = compile_pattern(r"\.php$")
    assert ends(b"/a.php") and not ends(b"/a.php/x")


def test_what_would_take_others_years_is_answered() -> None:
    assert not compile_pattern(r"^(a+)+$")(b"a" * 8000 + b"b")


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{2000}"])
def test_what_is_no_pattern_is_told(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression for RE2: "):
        compile_pattern(pattern)


def test_without_the_package_the_error_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(ValueError, match=r"install prefork_lb\[re2\]"):
        compile_pattern("a")
