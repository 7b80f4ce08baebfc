"""A bar chart as SVG: requests a second against nginx, by profile. Legible on light and on dark ground."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLORS = ("#009639", "#4a7ebb", "#1f88c0", "#c0504d", "#e69f00", "#8064a2", "#6b8e9f", "#999999")
_LEFT, _WIDTH, _BAR, _GAP, _HEADING, _TOP = 150, 520, 14, 4, 26, 40
_TEXT = "#777"


def bars(title: str, figures: Mapping[str, Mapping[str, float]], order: Sequence[str]) -> str:
    """`figures` maps a profile to the ratio of each contender; `order` names the contenders.

    Raises ValueError when there are no figures.
    """
    if not figures or not any(figures.values()):
        raise ValueError("there are no figures to draw")
    most = max(value for row in figures.values() for value in row.values())
    scale = _WIDTH / max(most, 1.0)
    parts, y = [], _TOP
    for profile, row in figures.items():
        y += _HEADING
        parts.append(f'<text x="0" y="{y - 8}" font-weight="bold">{escape(profile)}</text>')
        for name in order:
            if name not in row:
                continue
            width, color = max(row[name] * scale, 1.0), _COLORS[order.index(name) % len(_COLORS)]
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + _BAR - 3}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>'
                f'<text x="{_LEFT + width + 6:.1f}" y="{y + _BAR - 3}">{row[name]:.2f}</text>'
            )
            y += _BAR + _GAP
    line = _LEFT + scale
    parts.append(f'<line x1="{line:.1f}" y1="{_TOP}" x2="{line:.1f}" y2="{y}" stroke="{_TEXT}" stroke-dasharray="3 3"/>')
    width, height = _LEFT + _WIDTH + 60, y + 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="12" fill="{_TEXT}" role="img" aria-label="{escape(title)}">\n'
            f'<text x="0" y="18" font-size="15">{escape(title)}</text>\n' + "\n".join(parts) + "\n</svg>\n")
