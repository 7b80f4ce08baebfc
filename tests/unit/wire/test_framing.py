"""Framing beyond the corpus: what depends on the request's method and on several fields."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadResponse
from prefork_lb.wire.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind, content_length, response_framing
from prefork_lb.wire.head import Fields, ResponseHead

LENGTH: Fields = [(b"Content-Length", b"7")]
TRANSFER: Fields = [(b"Transfer-Encoding", b"chunked")]


def response(status: int, fields: Fields, minor: int = 1) -> ResponseHead:
    return ResponseHead(status, b"", minor, fields)


@pytest.mark.parametrize("fields", [[], LENGTH, TRANSFER])
@pytest.mark.parametrize("status", [100, 101, 103, 199, 204, 304])
def test_a_status_without_body_has_none_whatever_its_fields_say(status: int, fields: Fields) -> None:
    assert response_framing(response(status, fields), b"GET") == NO_BODY


@pytest.mark.parametrize("fields", [[], LENGTH, TRANSFER])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_response_to_head_has_no_body(status: int, fields: Fields) -> None:
    assert response_framing(response(status, fields), b"HEAD") == NO_BODY


@pytest.mark.parametrize("status", [200, 201, 205, 206, 301, 400, 502, 999])
def test_any_other_response_is_framed_by_its_fields(status: int) -> None:
    assert response_framing(response(status, LENGTH), b"GET") == Framing(FramingKind.LENGTH, 7)
    assert response_framing(response(status, TRANSFER), b"GET") == CHUNKED
    assert response_framing(response(status, []), b"GET") == UNTIL_CLOSE


def test_method_names_are_case_sensitive() -> None:
    assert response_framing(response(200, LENGTH), b"head") == Framing(FramingKind.LENGTH, 7)


def test_the_length_of_a_body_that_is_not_there_is_told() -> None:
    assert content_length(response(304, LENGTH).index) == 7
    assert content_length(response(304, []).index) is None
    with pytest.raises(BadResponse, match="not a number"):
        content_length(response(304, [(b"Content-Length", b"7x")]).index)


def test_a_length_of_a_million_digits_is_refused_and_not_computed() -> None:
    with pytest.raises(BadResponse) as caught:
        response_framing(response(200, [(b"Content-Length", b"9" * 1_000_000)]), b"GET")
    assert len(str(caught.value)) < 200
