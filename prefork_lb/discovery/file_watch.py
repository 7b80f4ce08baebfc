"""Sees when a file may have become another one: inotify(7), by ctypes, which Python has no module for.

The name of a file leads through folders and perhaps through links, and each of them may be replaced: editors rename a new file
over the old one, Kubernetes lets a link point to another folder, a folder is mounted anew. So every folder on the way is watched
for the names that lie on the way. A watch is made before the file is read, and made anew for each reading: then it sees whatever
comes after, and never goes by a way that is no more.
"""
from __future__ import annotations

import ctypes
import os
import select
import struct

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED, _ONLYDIR = 0x400, 0x800, 0x2000, 0x4000, 0x8000, 0x0100_0000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_OF_FOLDER = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _OVERFLOW | _IGNORED
_EVENT = struct.Struct("iIII")
_READ_BYTES = 65536
_MOST_LINKS = 40  # as the kernel follows them (path_resolution(7))

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Of one file, which need not be there. Raises OSError when there can be no watch."""

    def __init__(self, path: str) -> None:
        self._names: dict[int, set[bytes]] = {}  # by watch: the names in this folder that lie on the way
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            for folder, name in way_to(path):
                self._add(folder, os.fsencode(name))
        except OSError:
            self.close()
            raise

    def _add(self, folder: str, name: bytes) -> None:
        try:
            number = _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK))
        except (FileNotFoundError, NotADirectoryError):
            return  # a folder above is watched, and sees when this one comes
        self._names.setdefault(number, set()).add(name)

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether the file may be another one."""
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        return any(mask & _OF_FOLDER or name in self._names.get(number, ()) for number, mask, name in _events(data))

    def close(self) -> None:
        """End the watch."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def way_to(path: str) -> list[tuple[str, str]]:
    """The folders by which the name leads to the file, each with the name that is looked up in it."""
    found: list[tuple[str, str]] = []
    folder, parts, links = "/", os.path.abspath(path).split("/")[1:], 0
    while parts:
        name = parts.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            folder = os.path.dirname(folder)
            continue
        found.append((folder, name))
        here = os.path.join(folder, name)
        if os.path.islink(here) and links < _MOST_LINKS:
            links += 1
            target = os.readlink(here)
            parts = target.split("/") + parts
            if target.startswith("/"):
                folder = "/"
        else:
            folder = here
    return found


def _events(data: bytes) -> list[tuple[int, int, bytes]]:
    found, start = [], 0
    while start < len(data):
        number, mask, _, length = _EVENT.unpack_from(data, start)
        start += _EVENT.size
        found.append((number, mask, data[start:start + length].rstrip(b"\0")))
        start += length
    return found


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
