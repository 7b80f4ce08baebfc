"""Numbers as options and arguments of commands."""
from __future__ import annotations

import math
import re
from typing import Any

import click

from prefork_lb.errors import shown
from prefork_lb.shared.table import MOST_WEIGHT


class Number(click.FloatRange):
    """A number in a range. A comparison with nan is never true, so nan would lie in every range of click's own type."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no number", param, ctx)
        return number


def whole_number(text: str, most: int) -> int:
    """A number of 1 to `most`; 0: the text is none."""
    digits = text.lstrip("0")
    return int(digits) if re.fullmatch(r"[0-9]{1,7}", digits) and int(digits) <= most else 0


def weight_of(text: str) -> int | None:
    """A server's weight; None: "default", that of the configuration. Raises ValueError."""
    if text == "default":
        return None
    if not (number := whole_number(text, MOST_WEIGHT)):
        raise ValueError(f'{shown(text)} is no weight; expected 1 to {MOST_WEIGHT}, or "default"')
    return number
