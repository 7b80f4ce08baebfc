"""A number as an option of a command."""
from __future__ import annotations

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A number in a range. A comparison with nan is never true, so nan would lie in every range of click's own type."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no number", param, ctx)
        return number
