"""What of a response travels on to the client: one rule, for fields as pairs and as lines, of final and interim responses.

Heads of responses come again, so what is worked out from one is kept with it, in a slot that this module owns.
"""
from __future__ import annotations

from typing import Final

from prefork_lb.errors import BadResponse
from prefork_lb.wire.field_lines import Lines
from prefork_lb.wire.fields import HOP_BY_HOP
from prefork_lb.wire.forwarded import via
from prefork_lb.wire.head import Fields, ResponseHead

# The length is written anew, by how the body ends; an interim response has none (RFC 9110 8.6). A final one gets a Via anew.
_INTERIM: Final = Lines(lambda name: name not in HOP_BY_HOP and name != b"content-length", BadResponse)
_FINAL: Final = Lines(lambda name: name not in HOP_BY_HOP and name not in (b"content-length", b"via"), BadResponse)


class ResponseNotes:
    """What was worked out from the head of a response; None: not yet."""

    __slots__ = ("block", "fields", "lines")

    def __init__(self) -> None:
        self.fields: Fields | None = None  # that travel on, with Via
        self.lines: bytes | None = None  # the same, of a response that no server has sent
        self.block: bytes | None = None  # of the front end: what a client gets, but for what depends on its connection


_SEEN: Final = object()


def notes_on(head: ResponseHead) -> ResponseNotes:
    """What was worked out from this head so far."""
    notes = head.kept
    if not isinstance(notes, ResponseNotes):
        notes = head.kept = ResponseNotes()
    return notes


def known_block(head: ResponseHead) -> bytes | None:
    """The block that was noted for this head."""
    notes = head.kept
    return notes.block if isinstance(notes, ResponseNotes) else None


def note_block(head: ResponseHead, block: bytes) -> None:
    """Note the front end's block with a head that comes for the second time. Most come once."""
    if head.kept is None:
        head.kept = _SEEN
    else:
        notes_on(head).block = block


def final_block(head: ResponseHead, pseudonym: bytes, before: bytes, behind: bytes) -> bytes:
    """The fields of a final response that travel on, and Via, as lines, between two pieces. Raises BadResponse for a byte that no
    field may hold."""
    notes = head.kept
    if isinstance(notes, ResponseNotes) and notes.lines is not None:
        return b"%b%b%b" % (before, notes.lines, behind)
    return _FINAL.join(head.section, before, b"Via: %b\r\n%b" % (via(head.section, head.minor, pseudonym), behind))


def final_fields(head: ResponseHead, pseudonym: bytes) -> Fields:
    """The fields of a final response that travel on, and Via, as pairs."""
    notes = notes_on(head)
    fields = notes.fields
    if fields is None:
        fields = notes.fields = [*_FINAL.pick(head.fields, head.index), (b"Via", via(head.section, head.minor, pseudonym))]
    return fields


def interim_fields(head: ResponseHead) -> Fields:
    """The fields of an interim response (1xx) that travel on."""
    return _INTERIM.pick(head.fields, head.index)
