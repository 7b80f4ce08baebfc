"""Accept: the weight of the range that says most of a type, and the first type among equals."""
from __future__ import annotations

import random

import pytest
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from prefork_lb.wire.accept import preferred

TYPES = ("text/plain", "text/html", "application/json")


@pytest.mark.parametrize(("accept", "found"), [
    ("", "text/plain"),
    ("application/json, text/html", "text/html"),
    ("text/html;q=0.9, application/json;q=0.91", "application/json"),
    ("text/*;q=0.5, text/plain;q=0.1", "text/html"),
    ("*/*, text/plain;q=0, text/html;q=0.000", "application/json"),
    ("Application/*;Q=1.0,text/html ; q=0.999", "application/json"),
    ("text/html;q=0.2, text/html;q=0.9, application/json;q=0.5", "application/json"),  # the first one counts
    ("text/html;q=1.5, application/json;q=0.1", "application/json"),  # no weight (RFC 9110 12.4.2)
    ("text/html;level=1, application/json;q=0.1", "application/json"),  # another type
    ("text/*/html, application/json;q=0.1", "application/json"),
    ('text/html;x="a,b", application/json;q=0.1', "application/json"),
    ("image/png", "text/plain"),
])
def test_the_type_with_the_highest_weight_is_preferred(accept: str, found: str) -> None:
    assert preferred(accept, TYPES) == found


def test_it_agrees_with_another_reader() -> None:
    """werkzeug's, which looks at a range that says more of a type even where its weight is less than another's."""
    rng = random.Random(5)
    for _ in range(300):
        ranges = rng.sample(("text/plain", "text/html", "application/json", "image/png"), rng.randint(1, 4))
        accept = rng.choice((",", ", ")).join(f"{name};q={rng.randint(1, 999) / 1000}" for name in ranges)
        expected = parse_accept_header(accept, MIMEAccept).best_match(TYPES, default=TYPES[0])
        assert preferred(accept, TYPES) == expected, accept
