"""A picture of the comparison, as SVG: the times of each policy by percentile."""
from __future__ import annotations

import html
import math
from collections.abc import Mapping

from prefork_lb.simulate.figures import PERCENTS, Figures

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 460, 70, 200, 56, 56
# Tableau's ten, which colour-blind readers can tell apart by their order of brightness and the labels at the lines' ends.
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#ff9da7", "#79706e")
_MARKS = (10.0, 50.0, 90.0, 99.0, 99.9)
_LABEL_PX = 14


def svg(results: Mapping[str, Figures], title: str, chosen: str) -> str:
    """The picture. The horizontal scale gives each nine of a percentile the same room, the vertical one is logarithmic."""
    times = [1000 * seconds for each in results.values() for seconds in each.curve if seconds > 0] or [1.0]
    low, high = math.log10(min(times)), math.log10(max(times))
    low, high = (low - 0.05, high + 0.05) if high - low < 0.1 else (low, high)

    def x(percent: float) -> float:
        return _LEFT - math.log10(1 - percent / 100) / 3 * (_WIDTH - _LEFT - _RIGHT)

    def y(ms: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(ms) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
             f'<text x="{_LEFT}" y="26" font-size="15" fill="#222222">{html.escape(title)}</text>']
    for mark in _MARKS:
        parts.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#dddddd"/>'
                     f'<text x="{x(mark):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="#444444">'
                     f'{mark:g} %</text>')
    for ms in _ticks(low, high):
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(ms):.1f}" y2="{y(ms):.1f}" stroke="#eeeeee"/>'
                     f'<text x="{_LEFT - 8}" y="{y(ms) + 4:.1f}" text-anchor="end" fill="#444444">{_time(ms)}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 14}" text-anchor="middle" fill="#444444">'
                 'share of the requests that were answered within this time</text>')
    ends: list[tuple[float, str, str]] = []
    for number, (policy, each) in enumerate(results.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(x(percent), y(1000 * seconds)) for percent, seconds in zip(PERCENTS, each.curve, strict=True) if seconds > 0]
        if points:
            path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
            width = 3.5 if policy == chosen else 1.8
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
            ends.append((points[-1][1], policy, colour))
    below = 0.0
    for down, policy, colour in sorted(ends):
        below = max(down + 4, below + _LABEL_PX)
        weight = ' font-weight="bold"' if policy == chosen else ""
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{below:.1f}" fill="{colour}"{weight}>{html.escape(policy)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _time(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... within the powers of ten `low` to `high`; without one, its ends."""
    found: list[float] = [step * 10.0 ** power for power in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)]
    found = [each for each in found if low <= math.log10(each) <= high]
    return found or [float(f"{10 ** low:.3g}"), float(f"{10 ** high:.3g}")]
