"""Short texts in shared memory: UTF-8, ended by NUL, in a field of fixed size."""
from __future__ import annotations

from prefork_lb.shared.layout import KEY_BYTES, NOTE_BYTES
from prefork_lb.shared.segment import SegmentError


def read_text(memory: memoryview, start: int) -> str:
    """The text of the field that begins at byte `start`."""
    return bytes(memory[start:start + KEY_BYTES]).split(b"\0", 1)[0].decode(errors="replace")


def read_note(memory: memoryview, start: int) -> str:
    """The note that begins at byte `start`."""
    return bytes(memory[start:start + NOTE_BYTES]).split(b"\0", 1)[0].decode(errors="replace")


def as_note(text: str) -> str:
    """What a note keeps of `text`: one that is too long is cut."""
    return text.encode(errors="replace")[:NOTE_BYTES - 1].decode(errors="ignore")


def write_note(memory: memoryview, start: int, text: str) -> None:
    """Write `text` as the note that begins at byte `start`."""
    memory[start:start + NOTE_BYTES] = as_note(text).encode().ljust(NOTE_BYTES, b"\0")


def fits(text: str) -> bool:
    """Whether `write_text` has room for it."""
    return len(text.encode()) < KEY_BYTES


def write_text(memory: memoryview, start: int, text: str) -> None:
    """Write `text` into the field that begins at byte `start`. Raises SegmentError when it is too long."""
    if not fits(text):
        raise SegmentError(f"{text!r}: longer than the {KEY_BYTES - 1} bytes that the server table has for a name")
    memory[start:start + KEY_BYTES] = text.encode().ljust(KEY_BYTES, b"\0")
