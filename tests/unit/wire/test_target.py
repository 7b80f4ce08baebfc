"""Where a request goes, beyond the corpus."""

from __future__ import annotations

import pytest

from prefork_lb.errors import BadRequest
from prefork_lb.wire.head import RequestHead
from prefork_lb.wire.target import destination


def head(target: bytes, host: bytes | None = b"a.test", method: bytes = b"GET", minor: int = 1) -> RequestHead:
    return RequestHead(method, target, minor, [] if host is None else [(b"Host", host)])


@pytest.mark.parametrize(
    ("target", "path"), [(b"/a?b", b"/a?b"), (b"http://b.test/a?b", b"/a?b"), (b"http://b.test", b"/")]
)
def test_the_target_that_routes_and_servers_get_has_no_authority(target: bytes, path: bytes) -> None:
    goal = destination(head(target))
    assert goal.target == path


@pytest.mark.parametrize("target", [b"/a#b", b"/#"])
def test_a_fragment_is_refused_also_when_no_parser_has_looked(target: bytes) -> None:
    with pytest.raises(BadRequest, match="fragment"):
        destination(head(target))


@pytest.mark.parametrize("target", [b"", b"?a", b"**", b"a", b"://a/", b"http:/a", b"http:a", b"1http://a/"])
def test_targets_of_no_form_are_refused(target: bytes) -> None:
    with pytest.raises(BadRequest, match="no known form"):
        destination(head(target))


def test_two_hosts_joined_by_a_server_in_front_are_refused() -> None:
    with pytest.raises(BadRequest, match="not a host"):
        destination(head(b"/", b"a.test,b.test"))


def test_the_longest_name_with_a_port_is_a_host() -> None:
    name = b".".join([b"a" * 63] * 3) + b"." + b"b" * 61 + b".."  # 255 bytes
    assert destination(head(b"/", name + b":65535")).host == name + b":65535"
    with pytest.raises(BadRequest, match="not a host"):
        destination(head(b"/", name + b"c:65535"))


def test_a_bad_host_is_refused_every_time() -> None:
    for _ in range(2):  # names are remembered
        with pytest.raises(BadRequest, match="not a host"):
            destination(head(b"/", b"a b"))
