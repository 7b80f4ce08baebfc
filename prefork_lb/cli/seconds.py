"""Seconds as an option of a command."""
from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """A range of seconds. A comparison with nan is never true, so nan would lie in every range, and its time never be over."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no time; expected seconds", param, ctx)
        return number
