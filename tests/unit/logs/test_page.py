"""docs/logs.md is held against the code."""
from __future__ import annotations

import re
from pathlib import Path

from prefork_lb.cli.log import log
from prefork_lb.log_schema import FIELDS
from prefork_lb.logs.values import VALUES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "logs.md").read_text()


def test_the_page_has_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(name, *field) for name, field in FIELDS.items()]


def test_each_field_but_those_that_a_format_makes_has_a_value() -> None:
    assert set(FIELDS) - set(VALUES) == {"time", "request_fields", "response_fields"}


def test_the_page_has_every_option_of_the_command() -> None:
    told = set(re.findall(r"`(--[a-z]+)", PAGE))
    options = {option for parameter in log.params for option in parameter.opts if option.startswith("--")}
    assert options - told <= {"--master"}, "of every command"
