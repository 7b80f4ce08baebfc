"""A WSGI environ as the head of a request."""

from __future__ import annotations

from typing import Any

import pytest

from prefork_lb.errors import BadRequest, HeadTooLarge, VersionNotSupported
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wsgi.environ import RequestHeads, _short_name, client_info


def environ(**more: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "RAW_URI": "/p?q",
        "HTTP_HOST": "a.test",
        "wsgi.input": None,
        **more,
    }


request_head = RequestHeads(HeadLimits())


def test_method_target_version_and_fields() -> None:
    head = request_head(environ(REQUEST_METHOD="BREW", HTTP_X_A="1", HTTP_ACCEPT_LANGUAGE="de"))
    assert (head.method, head.target, head.minor) == (b"BREW", b"/p?q", 1)
    assert head.fields == [(b"Host", b"a.test"), (b"X-A", b"1"), (b"Accept-Language", b"de")]


def test_content_fields_have_their_names() -> None:
    head = request_head(environ(CONTENT_TYPE="text/plain", CONTENT_LENGTH="5"))
    assert head.index[b"content-type"] == [b"text/plain"]
    assert head.index[b"content-length"] == [b"5"]


def test_empty_content_fields_are_absent() -> None:
    head = request_head(environ(CONTENT_TYPE="", CONTENT_LENGTH=""))
    assert b"content-type" not in head.index and b"content-length" not in head.index


def test_other_empty_fields_are_there() -> None:
    assert request_head(environ(HTTP_X_A="")).index[b"x-a"] == [b""]


@pytest.mark.parametrize(("version", "minor"), [("HTTP/1.0", 0), ("HTTP/1.1", 1), ("HTTP/1.2", 1), ("HTTP/1.9", 1)])
def test_minor_versions(version: str, minor: int) -> None:
    assert request_head(environ(SERVER_PROTOCOL=version)).minor == minor


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/2", "HTTP/1.10", "", "http/1.1"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(VersionNotSupported):
        request_head(environ(SERVER_PROTOCOL=version))


def test_bytes_pass_as_latin_1() -> None:
    assert request_head(environ(HTTP_X_A="gr\xfc\xdfe")).index[b"x-a"] == [b"gr\xfc\xdfe"]


@pytest.mark.parametrize("key", ["HTTP_X_A", "RAW_URI", "REQUEST_METHOD"])
def test_what_is_no_byte_is_refused(key: str) -> None:
    with pytest.raises(BadRequest, match="no byte"):
        request_head(environ(**{key: "\u20ac"}))


@pytest.mark.parametrize(
    ("parts", "target"),
    [
        ({"PATH_INFO": "/a b"}, b"/a%20b"),
        ({"PATH_INFO": "/a", "QUERY_STRING": "b=c&d"}, b"/a?b=c&d"),
        ({"PATH_INFO": ""}, b"/"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, b"/app/x"),
        ({"PATH_INFO": "/\xe2\x82\xac"}, b"/%E2%82%AC"),
        ({}, b"/"),
        ({"PATH_INFO": "/a\r\nX: 1"}, b"/a%0D%0AX:%201"),
        ({"PATH_INFO": "/%41"}, b"/%2541"),
    ],
)
def test_without_the_raw_target_it_is_built_anew(parts: dict[str, str], target: bytes) -> None:
    assert request_head(environ(RAW_URI="", **parts)).target == target


def test_equal_environs_give_equal_heads_and_others_do_not() -> None:
    assert request_head(environ(HTTP_X_A="1")) == request_head(environ(HTTP_X_A="1"))
    assert request_head(environ(HTTP_X_A="1")).fields != request_head(environ(HTTP_X_A="2")).fields
    # The same values under other names, and the same text cut elsewhere.
    assert (
        request_head(environ(HTTP_X_A="1", HTTP_X_B="2")).fields
        != request_head(environ(HTTP_X_A="2", HTTP_X_B="1")).fields
    )


def trust_all(address: str) -> bool:
    return True


def trust_none(address: str) -> bool:
    return False


def test_the_client() -> None:
    assert client_info({"REMOTE_ADDR": "192.0.2.7", "SERVER_PORT": "8000"}, False, trust_none) == ClientInfo(
        "192.0.2.7", b"http", 8000, False
    )
    assert client_info({"REMOTE_ADDR": "2001:db8::7", "SERVER_PORT": "443"}, True, trust_all) == ClientInfo(
        "2001:db8::7", b"https", 443, True
    )


def test_an_ipv4_client_of_a_socket_for_both_families_is_an_ipv4_client() -> None:
    asked: list[str] = []

    def note(address: str) -> bool:
        asked.append(address)
        return False

    assert client_info({"REMOTE_ADDR": "::ffff:192.0.2.7", "SERVER_PORT": "80"}, False, note).address == "192.0.2.7"
    assert asked == ["192.0.2.7"]


def test_a_client_of_a_unix_socket_is_trusted() -> None:
    assert client_info({"REMOTE_ADDR": "", "SERVER_PORT": ""}, False, trust_none) == ClientInfo("", b"http", 0, True)


def test_what_the_client_says_of_its_scheme_is_not_believed() -> None:
    info = client_info(
        {
            "REMOTE_ADDR": "192.0.2.7",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "https",
            "HTTP_X_FORWARDED_PROTO": "https",
        },
        False,
        trust_none,
    )
    assert info.scheme == b"http"


def test_a_small_head_that_comes_again_is_remembered() -> None:
    again = environ(HTTP_X_A="again and again")
    request_head(again)  # whatever comes once is not kept
    assert request_head(again).section is request_head(again).section


@pytest.mark.parametrize("fields", [
    {"HTTP_COOKIE": "c" * 30_000},
    {f"HTTP_{'N' * 8000}{number}": "" for number in range(100)},  # 406 MiB a worker, when values alone were counted
    {f"HTTP_{number}": "" for number in range(1000)},
], ids=["value", "names", "fields"])
def test_a_large_head_is_not_remembered(fields: dict[str, str]) -> None:
    heads = RequestHeads(HeadLimits(head_bytes=1 << 20))
    large = environ(**fields)
    heads(large)
    assert heads(large).section is not heads(large).section


def test_long_names_are_not_remembered() -> None:
    before = _short_name.cache_info().currsize
    request_head(environ(HTTP_AB=""))
    request_head(environ(**{"HTTP_" + "N" * 60: ""}))
    assert _short_name.cache_info().currsize <= before + 1


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_beyond_its_limit_is_refused_and_one_at_the_limit_is_not(more: int) -> None:
    heads = RequestHeads(HeadLimits(head_bytes=1000))
    whole = b"GET /target HTTP/1.1\r\nHost: a.test\r\nX-A: %b\r\n\r\n"
    value = "v" * (1000 - len(whole % b"") + more)
    for _ in range(3):  # also when its fields are remembered
        if more:
            with pytest.raises(HeadTooLarge, match="the head has 1001 bytes, at most 1000 are allowed"):
                heads(environ(REQUEST_METHOD="GET", RAW_URI="/target", HTTP_X_A=value))
        else:
            assert heads(environ(REQUEST_METHOD="GET", RAW_URI="/target", HTTP_X_A=value)).target == b"/target"


@pytest.mark.parametrize("port", ["\xb2", "9" * 5000, "1234", "port"])
def test_a_client_of_a_unix_socket_does_not_choose_the_port(port: str) -> None:
    """gunicorn takes it from Host, having no other."""
    assert client_info({"REMOTE_ADDR": "", "SERVER_PORT": port}, False, trust_none).port == 0
