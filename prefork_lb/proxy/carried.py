"""What of a response travels on to the client: one rule, for fields as pairs and as lines, of final and interim responses.

Heads of responses come again, so what is worked out from one is kept with it, in a slot that this module owns.
"""
from __future__ import annotations

from prefork_lb.errors import BadResponse
from prefork_lb.wire.fields import HOP_BY_HOP
from prefork_lb.wire.forwarded import via
from prefork_lb.wire.head import Fields, ResponseHead
from prefork_lb.wire.lines import Lines

# The length is written anew, by how the body ends; an interim response has none (RFC 9110 8.6). A final one gets a Via anew.
_INTERIM = Lines(lambda name: name not in HOP_BY_HOP and name != b"content-length", BadResponse)
_FINAL = Lines(lambda name: name not in HOP_BY_HOP and name not in (b"content-length", b"via"), BadResponse)


class ResponseNotes:
    """What was worked out from the head of a response; None: not yet."""

    __slots__ = ("block", "fields", "lines")

    def __init__(self) -> None:
        self.fields: Fields | None = None  # that travel on, with Via
        self.lines: bytes | None = None  # the same
        self.block: bytes | None = None  # of the front end: what a client gets, but for what depends on its connection


def notes_on(head: ResponseHead) -> ResponseNotes:
    """What was worked out from this head so far."""
    notes = head.kept
    if not isinstance(notes, ResponseNotes):
        notes = head.kept = ResponseNotes()
    return notes


def final_lines(head: ResponseHead, pseudonym: bytes) -> bytes:
    """The fields of a final response that travel on, and Via, as lines. Raises BadResponse for a byte that no field may hold."""
    notes = notes_on(head)
    lines = notes.lines
    if lines is None:
        lines = notes.lines = b"%bVia: %b\r\n" % (_FINAL.join(head.section), via(head.index, head.minor, pseudonym))
    return lines


def final_fields(head: ResponseHead, pseudonym: bytes) -> Fields:
    """The same as pairs."""
    notes = notes_on(head)
    fields = notes.fields
    if fields is None:
        fields = notes.fields = [*_FINAL.pick(head.fields, head.index), (b"Via", via(head.index, head.minor, pseudonym))]
    return fields


def interim_fields(head: ResponseHead) -> Fields:
    """The fields of an interim response (1xx) that travel on."""
    return _INTERIM.pick(head.fields, head.index)
