"""A day of a pool that scales, as SVG: requests a second, the servers that run, and those of a fixed pool. Legible on light and
on dark ground."""
from __future__ import annotations

from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 380, 60, 60, 50, 40
_TEXT, _RATE, _SERVERS = "#777", "#4a7ebb", "#009639"


def picture(shown: Sequence[tuple[float, float, int]], fixed: int) -> str:
    """`shown`: the second of the day, requests a second, servers."""
    most_rate = max(rate for _, rate, _ in shown)
    most = max(fixed, max(servers for _, _, servers in shown)) + 1

    def x(second: float) -> float:
        return _LEFT + second / 86400 * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="24" font-size="15">A day: servers follow the load</text>']
    for hour in range(0, 25, 3):
        parts.append(f'<line x1="{x(hour * 3600):.1f}" x2="{x(hour * 3600):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" '
                     f'stroke="{_TEXT}" stroke-opacity="0.2"/>'
                     f'<text x="{x(hour * 3600):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{hour}:00</text>')
    for servers in range(most):
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{y(servers / most) + 4:.1f}" fill="{_SERVERS}">{servers}</text>')
    for rate in range(0, int(most_rate) + 1, 100):
        parts.append(f'<text x="{_LEFT - 8}" y="{y(rate / most_rate * 0.8) + 4:.1f}" text-anchor="end" fill="{_RATE}">'
                     f'{rate}</text>')
    rates = " ".join(f"{x(second):.1f},{y(rate / most_rate * 0.8):.1f}" for second, rate, _ in shown)
    steps, before = [], None
    for second, _, servers in shown:
        if before is not None and before != servers:
            steps.append(f"{x(second):.1f},{y(before / most):.1f}")
        if before != servers:
            steps.append(f"{x(second):.1f},{y(servers / most):.1f}")
        before = servers
    steps.append(f"{x(86400):.1f},{y((before or 0) / most):.1f}")
    parts += [f'<polyline points="{rates}" fill="none" stroke="{_RATE}" stroke-width="1.5"/>',
              f'<polyline points="{" ".join(steps)}" fill="none" stroke="{_SERVERS}" stroke-width="2"/>',
              f'<line x1="{x(0):.1f}" x2="{x(86400):.1f}" y1="{y(fixed / most):.1f}" y2="{y(fixed / most):.1f}" stroke="{_TEXT}" '
              'stroke-dasharray="5 4"/>',
              f'<text x="{x(1800):.1f}" y="{y(fixed / most) - 6:.1f}">fixed at the peak\'s need: {fixed}</text>',
              f'<text x="{_LEFT}" y="{_TOP - 8}" fill="{_RATE}">requests a second</text>',
              f'<text x="{_WIDTH - _RIGHT}" y="{_TOP - 8}" text-anchor="end" fill="{_SERVERS}">servers</text>']
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
            f'font-family="sans-serif" font-size="12" fill="{_TEXT}" role="img" aria-label="Servers over a day">\n'
            + "\n".join(parts) + "\n</svg>\n")
