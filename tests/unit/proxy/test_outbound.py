"""The request as it goes to a server."""

from __future__ import annotations

import pytest

from prefork_lb.errors import BadRequest, ExpectationFailed, FinalRecipient
from prefork_lb.proxy.outbound import request_block
from prefork_lb.proxy.request import Request
from prefork_lb.routing.actions import NO_CHANGES, Actions, FieldChanges, field_changes, of_requests
from prefork_lb.routing.template import Facts
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.framing import request_framing
from prefork_lb.wire.head import Fields, HeadLimits, RequestHead
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from tests.unit.proxy.loopback import STRANGER, Client, Source

HOST = (b"Host", b"a.test")
TRUSTED = ClientInfo("192.0.2.7", b"http", 8000, True)


def block(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    minor: int = 1,
    host: bool = True,
    peer: ClientInfo = STRANGER,
    changes: FieldChanges = NO_CHANGES,
) -> bytes:
    head = RequestHead(method, target, minor, [HOST, *fields] if host else list(fields))
    return block_of(head, peer, changes)


def block_of(head: RequestHead, peer: ClientInfo, changes: FieldChanges) -> bytes:
    request, goal = Request(head, peer, Source(), Client()), destination(head)
    facts = Facts(head, goal.target, goal.name, (), peer, lambda _: False)
    applied = Actions(request=changes).apply(facts, goal.target, 0)
    return request_block(request, goal, request_framing(head), "web", b"lb", applied=applied)


def parsed(*fields: tuple[bytes, bytes], **options: object) -> RequestHead:
    return parse_request(block(*fields, **options), HeadLimits())  # type: ignore[arg-type]


def end_to_end(head: RequestHead) -> Fields:
    """Without what every request gets."""
    return [field for field in head.fields if not field[0].startswith((b"X-Forwarded-", b"Forwarded", b"Via", b"Host"))]


def test_a_plain_request_is_told_where_it_comes_from() -> None:
    assert block((b"X-A", b"1"), target=b"/p?q") == (
        b"GET /p?q HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"
        b'X-Forwarded-Port: 8000\r\nX-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7;proto=http;host="a.test"\r\n'
        b"Via: 1.1 lb\r\n\r\n"
    )


def test_host_comes_first_and_once() -> None:
    head = parsed((b"X-A", b"1"), target=b"http://b.test:81/p")
    assert head.target == b"/p"
    assert head.fields[0] == (b"Host", b"b.test:81")
    assert head.index[b"host"] == [b"b.test:81"]


def test_a_client_without_host_gets_the_name_of_the_pool() -> None:
    assert parsed(minor=0, host=False).index[b"host"] == [b"web"]


def test_an_old_client_is_spoken_for_in_http_1_1() -> None:
    head = parsed(minor=0)
    assert head.minor == 1
    assert head.index[b"via"] == [b"1.0 lb"]


def test_hop_by_hop_fields_stop_and_the_others_travel_in_order() -> None:
    kept = [(b"X-A", b"1"), (b"Cookie", b"c"), (b"x-a", b"2"), (b"Authorization", b"t")]
    stopped = [
        (b"Connection", b"X-Hop, cookie, close"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"5"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"websocket"),
        (b"Proxy-Authorization", b"x"),
        (b"Proxy-Connection", b"close"),
        (b"HTTP2-Settings", b"x"),
    ]
    mixed = [field for pair in zip(stopped, kept, strict=False) for field in pair] + stopped[len(kept) :]
    assert end_to_end(parsed(*mixed)) == kept


def changed(changes: FieldChanges, *fields: tuple[bytes, bytes]) -> Fields:
    """What a server gets beside what every request gets; the same of a section that was read here and of one that was made."""
    made = RequestHead(b"GET", b"/", 1, [HOST, *fields])
    read = parse_request(b"GET / HTTP/1.1\r\n%b\r\n" % field_lines([HOST, *fields]), HeadLimits())
    blocks = [block_of(head, STRANGER, changes) for head in (made, read, made)]
    assert blocks == [blocks[0]] * 3
    return end_to_end(parse_request(blocks[0], HeadLimits()))


def test_fields_are_set_added_and_removed() -> None:
    changes = of_requests(field_changes({"X-Set": "{host}"}, {"X-Add": "2"}, ["X-Gone"]), ())
    fields = (b"X-Set", b"1"), (b"x_set", b"2"), (b"X-Add", b"1"), (b"X-Gone", b"1"), (b"X_GONE", b"2"), (b"X-Stay", b"1")
    assert changed(changes, *fields) == [(b"X-Add", b"1"), (b"X-Stay", b"1"), (b"X-Set", b"a.test"), (b"X-Add", b"2")]


def test_a_name_with_an_underscore_is_taken_out_in_both_spellings() -> None:
    changes = of_requests(field_changes({"X_User": "{host}"}, {}, ["X_Gone"]), ["X_Told"])
    fields = (b"X_User", b"forged"), (b"X-User", b"forged"), (b"x_User", b"forged"), (b"x_gone", b"1"), (b"X_Told", b"1")
    assert changed(changes, *fields) == [(b"X_User", b"a.test")]


def test_two_routes_with_one_section_each_have_their_own_changes() -> None:
    """A front end that keeps sections has one for all routes."""
    head = RequestHead(b"GET", b"/", 1, [HOST, (b"X-A", b"1"), (b"X-B", b"2")])
    removing = [of_requests(field_changes({}, {}, names), ()) for names in ([], ["X-A"], ["X-B"], ["X-A", "X-B"])]
    for changes, left in (*zip(removing, (b"12", b"2", b"1", b""), strict=True), (NO_CHANGES, b"12")):
        found = end_to_end(parse_request(block_of(head, STRANGER, changes), HeadLimits()))
        assert b"".join(value for _, value in found) == left


@pytest.mark.parametrize(("name", "before"), [
    ("Host", b"a.test"), ("X-Forwarded-For", b"192.0.2.7"), ("X_Forwarded_Proto", b"http"), ("Forwarded", None),
    ("Max-Forwards", b"3"),
])
def test_a_route_may_set_what_is_written_anew(name: str, before: bytes | None) -> None:
    """Also what tells the server about the client; and there is only one of it then."""
    key = name.lower().replace("_", "-").encode()
    plain = parsed((b"Max-Forwards", b"3"))
    assert before in (None, *plain.index[key])
    changes = of_requests(field_changes({name: "other"}, {}, []), ())
    head = parse_request(block((b"Max-Forwards", b"3"), changes=changes), HeadLimits())
    assert [value for found, value in head.fields if found.lower().replace(b"_", b"-") == key] == [b"other"]
    assert len(head.fields) == len(plain.fields)


def test_a_value_that_looks_like_a_line_of_the_proxy_stays() -> None:
    changes = of_requests(field_changes({"Host": "b.test"}, {}, []), ())
    assert changed(changes, (b"X-A", b"Host: a"), (b"My-Host", b"1")) == [(b"X-A", b"Host: a"), (b"My-Host", b"1")]


def test_via_and_the_chain_of_proxies_are_extended() -> None:
    index = parsed((b"Via", b"1.1 x"), (b"Via", b"1.0 y"), (b"X-Forwarded-For", b"10.0.0.1"), peer=TRUSTED).index
    assert index[b"via"] == [b"1.1 x, 1.0 y, 1.1 lb"]
    assert index[b"x-forwarded-for"] == [b"10.0.0.1, 192.0.2.7"]


@pytest.mark.parametrize(("value", "sent"), [(b"5", b"5"), (b"005", b"5"), (b"0", b"0"), (b"5, 5", b"5")])
def test_a_length_is_sent_as_one_plain_number(value: bytes, sent: bytes) -> None:
    assert parsed((b"Content-Length", value)).index[b"content-length"] == [sent]


def test_a_chunked_body_is_announced_anew() -> None:
    head = parsed((b"Transfer-Encoding", b"CHUNKED"))
    assert head.index[b"transfer-encoding"] == [b"chunked"]
    assert b"content-length" not in head.index


def test_framing_fields_named_by_connection_are_still_written() -> None:
    head = parsed((b"Connection", b"Content-Length, Host"), (b"Content-Length", b"3"))
    assert (head.index[b"content-length"], head.index[b"host"]) == ([b"3"], [b"a.test"])


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_expect_continue_was_answered_by_the_front_end(value: bytes) -> None:
    assert b"expect" not in parsed((b"Expect", value)).index


@pytest.mark.parametrize("values", [[b"something"], [b""], [b"100-continue", b"x"], [b"100-continue, 100-continue"]])
def test_other_expectations_fail(values: list[bytes]) -> None:
    with pytest.raises(ExpectationFailed, match="Expect: "):
        block(*[(b"Expect", value) for value in values])


# What no parser of ours has looked at: a WSGI server's environ may hold anything.
@pytest.mark.parametrize(
    "value",
    [
        b"a\rb",
        b"a\nb",
        b"a\0b",
        b"a\x01b",
        b"a\x7f",
        b"a\r\n b",
        b"a\r\nX-Evil: 1",
        b"a\r\n",
        b"\r\n\r\nGET / HTTP/1.1",
    ],
)
@pytest.mark.parametrize("name", [b"X-A", b"X-Forwarded-For", b"Forwarded", b"X-Forwarded-Proto", b"X-Real-IP", b"Via"])
def test_a_value_cannot_split_the_request(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest, match="no field may hold"):
        block((name, value), peer=TRUSTED)


@pytest.mark.parametrize("name", [b"X A", b"X:A", b"X\r\nY", b"", b"X\n", b"A: 1\r\nB", b"X\0"])
def test_a_name_cannot_split_the_request(name: bytes) -> None:
    with pytest.raises(BadRequest, match="no field may hold"):
        block((name, b"1"))


@pytest.mark.parametrize(
    "target",
    [
        b"/ HTTP/1.1\r\nX-Evil: 1\r\nX:",
        b"/\n",
        b"/\r",
        b"/\0",
        b"/ ",
        b"/\x7f",
        b"/\xff",
        b"/a b",
        b"http://a.test/\r\nX-Evil: 1",
    ],
)
def test_a_target_cannot_split_the_request(target: bytes) -> None:
    with pytest.raises(BadRequest, match="request line"):
        block(target=target)


@pytest.mark.parametrize("method", [b"", b"G T", b"GET / HTTP/1.1\r\nX:", b"G\0", b"G\n", b"G\xff"])
def test_a_method_cannot_split_the_request(method: bytes) -> None:
    with pytest.raises(BadRequest, match="request line"):
        block(method=method)


def test_a_value_with_bytes_above_ascii_passes_unchanged() -> None:
    assert end_to_end(parsed((b"X-A", b"gr\xfc\xdfe\t\xe2\x82\xac"))) == [(b"X-A", b"gr\xfc\xdfe\t\xe2\x82\xac")]


@pytest.mark.parametrize(("method", "value", "sent"), [(b"OPTIONS", b"5", b"4"), (b"OPTIONS", b"1", b"0"), (b"GET", b"0", b"0")])
def test_max_forwards_is_counted_down_for_options(method: bytes, value: bytes, sent: bytes) -> None:
    assert parsed((b"Max-Forwards", value), method=method).index[b"max-forwards"] == [sent]


def test_at_zero_this_proxy_is_the_final_recipient() -> None:
    with pytest.raises(FinalRecipient):
        block((b"Max-Forwards", b"0"), method=b"OPTIONS")


@pytest.mark.parametrize("value", [b"", b"-1", b"x", b"1, 2", b"9" * 30])
def test_max_forwards_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="Max-Forwards"):
        block((b"Max-Forwards", value), method=b"OPTIONS")
