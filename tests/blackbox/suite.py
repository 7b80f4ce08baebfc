"""All the cases, by topic."""
from __future__ import annotations

from . import (
    cases_bodies,
    cases_connections,
    cases_framing,
    cases_hop_by_hop,
    cases_servers,
    cases_smuggling,
    cases_syntax,
)
from .case import Case

CASES: list[Case] = [
    *cases_smuggling.CASES, *cases_syntax.CASES, *cases_hop_by_hop.CASES, *cases_framing.CASES, *cases_servers.CASES,
    *cases_connections.CASES, *cases_bodies.CASES,
]
