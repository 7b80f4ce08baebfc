"""Every case of tests/wire, read whole, a byte at a time and in odd pieces."""

from __future__ import annotations

import pytest

from prefork_lb import errors
from prefork_lb.wire.framing import Framing, FramingKind
from tests.wire.corpus import KINDS, Case, cases, latin
from tests.wire.reading import read_chunked, read_request, read_response

PIECES = (0, 1, 7)
whole_and_in_pieces = pytest.mark.parametrize("piece", PIECES, ids=["whole", "bytes", "sevens"])
INVALID = [pytest.param(case, id=f"{kind}-{case}") for kind in KINDS for case in cases("invalid", kind)]


def each(verdict: str, kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases(verdict, kind), ids=str)


def expected_framing(case: Case) -> Framing:
    return Framing(FramingKind(case.expected["framing"]), case.expected.get("length", 0))


@whole_and_in_pieces
@each("valid", "request")
def test_valid_request(case: Case, piece: int) -> None:
    reading = read_request(case.data, case.limits, piece)
    if not case.is_complete:
        assert reading is None
        return
    assert reading is not None
    expected = case.expected
    head, goal = reading.head, reading.goal
    assert (head.method, head.target, head.minor) == (
        latin(expected["method"]),
        latin(expected["target"]),
        expected["minor"],
    )
    assert head.fields == case.fields("fields")
    assert reading.framing == expected_framing(case)
    assert goal.target == latin(expected["sends"])
    assert goal.host == (latin(expected["host"]) if "host" in expected else None)
    assert goal.name == expected["name"]
    assert reading.rest == latin(expected.get("rest", ""))


@whole_and_in_pieces
@each("valid", "response")
def test_valid_response(case: Case, piece: int) -> None:
    reading = read_response(case.data, case.request_method, case.limits, piece)
    if not case.is_complete:
        assert reading is None
        return
    assert reading is not None
    expected, head = case.expected, reading.head
    assert (head.status, head.reason, head.minor) == (expected["status"], latin(expected["reason"]), expected["minor"])
    assert head.fields == case.fields("fields")
    assert reading.framing == expected_framing(case)
    assert reading.rest == latin(expected.get("rest", reading.rest.decode("latin-1")))


@whole_and_in_pieces
@each("valid", "chunked")
def test_valid_chunked_body(case: Case, piece: int) -> None:
    reading = read_chunked(case.data, case.limits, piece)
    assert reading.done == case.is_complete
    assert reading.data == latin(case.expected["data"])
    assert reading.trailers == case.fields("trailers")
    assert reading.excess == latin(case.expected.get("excess", ""))


@whole_and_in_pieces
@pytest.mark.parametrize("case", INVALID)
def test_invalid(case: Case, piece: int) -> None:
    expected: type[errors.ProxyError] = getattr(errors, case.expected["error"])
    with pytest.raises(errors.ProxyError) as caught:
        if case.kind == "request":
            read_request(case.data, case.limits, piece)
        elif case.kind == "response":
            read_response(case.data, case.request_method, case.limits, piece)
        else:
            read_chunked(case.data, case.limits, piece)
    assert type(caught.value) is expected
    assert case.expected["message"] in str(caught.value)


def test_the_corpus_is_whole() -> None:
    for kind in KINDS:
        assert len(cases("valid", kind)) >= 15 and len(cases("invalid", kind)) >= 30
    every = [case for verdict in ("valid", "invalid") for kind in KINDS for case in cases(verdict, kind)]
    assert all(case.expected["rule"] for case in every)
