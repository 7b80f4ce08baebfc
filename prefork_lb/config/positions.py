"""Where the keys of a TOML file stand: the line of every key and array element.

`tomllib` reads a file but tells no positions, so this walks over the text of a file that `tomllib` has accepted; what would be
a syntax error is not looked for again. Grammar: TOML 1.0.
"""
from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}\s#]+(?: [0-9:.Z+-]+)?")  # a number, a boolean, or a date, which may have one blank in it
_MULTILINE = {
    # Up to two quotes may stand right before the closing three.
    '"""': re.compile(r'"""(?:\\.|.)*?"{3,5}', re.S),
    "'''": re.compile(r"'''.*?'{3,5}", re.S),
}


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of each key and element by its path, as `("pools", "web", "servers", 1, "weight")`."""
    return _Walker(text).walk()


class _Walker:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._number, self._counted = 1, 0  # the number of the line, and the position, up to which lines are counted
        self._lines: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}  # how many [[tables]] an array has so far

    def walk(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self._skip(_SPACE)
            if self._position >= len(self._text):
                return self._lines
            if self._text.startswith("[", self._position):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._position)
        line = self._line()
        self._position += 2 if array else 1
        keys = self._dotted()
        self._position += 2 if array else 1
        path: Path = ()
        for key in keys[:-1]:
            path = self._inside((*path, key))
            self._lines.setdefault(path, line)
        path = (*path, keys[-1])
        self._lines.setdefault(path, line)
        if array:
            self._elements[path] = self._elements.get(path, 0) + 1
            path = self._inside(path)
            self._lines[path] = line
        return path

    def _inside(self, path: Path) -> Path:
        """The path itself, or of an array of tables its last element."""
        return (*path, self._elements[path] - 1) if path in self._elements else path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._dotted():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._skip(_BLANK)
        self._position += 1  # =
        self._skip(_BLANK)
        self._value(path)

    def _dotted(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            keys.append(self._key())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._position):
                return keys
            self._position += 1

    def _key(self) -> str:
        match = _BARE.match(self._text, self._position)
        if match:
            self._position = match.end()
            return match[0]
        start = self._position
        self._string()
        return str(tomllib.loads(f"key = {self._text[start:self._position]}")["key"])

    def _value(self, path: Path) -> None:
        first = self._text[self._position]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._position += 1
            index = 0
            while not self._at_end("]"):
                self._lines[*path, index] = self._line()
                self._value((*path, index))
                index += 1
        elif first == "{":
            self._position += 1
            while not self._at_end("}"):
                self._pair(path)
        else:
            self._skip(_SCALAR)

    def _at_end(self, bracket: str) -> bool:
        self._skip(_SPACE)
        if self._text.startswith(",", self._position):
            self._position += 1
            self._skip(_SPACE)
        if self._text.startswith(bracket, self._position):
            self._position += 1
            return True
        return False

    def _string(self) -> None:
        for quote, pattern in _MULTILINE.items():
            if self._text.startswith(quote, self._position):
                self._skip(pattern)
                return
        quote = self._text[self._position]
        self._position += 1
        while self._text[self._position] != quote:
            self._position += 2 if quote == '"' and self._text[self._position] == "\\" else 1
        self._position += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._position)
        if match:
            self._position = match.end()

    def _line(self) -> int:
        self._number += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._number
