"""Which media type a client prefers: the rules of RFC 9110 12.5.1, and werkzeug as a second opinion."""
from __future__ import annotations

import random
import time

import pytest
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from prefork_lb.proxy.accept import preferred

TYPES = ("text/plain", "text/html", "application/json")
RANGES = ("text/plain", "text/html", "application/json", "TEXT/html", "text/*", "application/*", "*/*", "image/png",
          "text/html;level=1", 'text/plain;x="a, text/html, b"', "*/html", "text", "")
QUALITIES = ("", ";q=1", ";q=0", ";q=0.5", " ; q=0.25", ";\tQ=0.999", ";q=1.000", ";q=2", ";q=-1", ";q=x")


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        ("text/html;q=0.4, text/*;q=0.9", "text/plain"),  # html has 0.4 by its own range, which is the more specific one
        ("*/*, text/plain;q=0", "text/html"),
        ("*/*, text/*;q=0", "application/json"),
        ("*/*;q=0.5, application/json;q=0.5", "application/json"),  # of equal quality the one that is named
        ("text/html;level=1, application/json;q=0.1", "application/json"),
        ('image/png;x="\\", text/html, ", application/json', "application/json"),
        ('application/json, image/png;x="text/html', "application/json"),
        ("text/html;q=0.1, text/html;q=0.8, application/json;q=0.5", "text/html"),
        ("application/json, text/html;q=0.", "application/json"),
        ("text/html;q=1e0", "text/plain"),
        ("text/html;q=\u0661", "text/plain"),  # a digit, though not one of ASCII
    ],
)
def test_the_most_specific_range_decides(accept: str, found: str) -> None:
    assert preferred(accept, TYPES) == found


@pytest.mark.parametrize("seed", range(5))
def test_werkzeug_finds_the_same(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        members = [rng.choice(RANGES) + rng.choice(QUALITIES) for _ in range(rng.randrange(1, 6))]
        accept = rng.choice((",", ", ", " ,\t")).join(members)
        assert preferred(accept, TYPES) == parse_accept_header(accept, MIMEAccept).best_match(TYPES, default=TYPES[0]), accept


@pytest.mark.parametrize("piece", ['"', "\\", '"\\', ";q=", ",", '",', ";"])
def test_no_input_takes_quadratic_time(piece: str) -> None:
    """A thousandfold of what a page parses at most: 5 s if each byte looked at all others, some milliseconds if not."""
    start = time.process_time()
    preferred('a;x="' + piece * 100_000, TYPES)
    assert time.process_time() - start < 1
