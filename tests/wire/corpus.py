"""The cases beside this file: `{valid,invalid}/{request,response,chunked}/NAME.http` with its expectation in `NAME.toml`.

Every expectation names its `rule`. Optional for all: `limits`, by the names of `wire.head.Limits`, where the defaults are
not meant. Text stands for bytes by Latin-1.

- valid request: `method`, `target`, `minor`, `fields`, `framing` (and `length`), `sends` (the target for the server),
  `host` (left out: none), `name`; `rest` when something follows the head
- valid response: `status`, `reason`, `minor`, `fields`, `framing` (and `length`), `rest`; `request_method` when it is not GET
- valid chunked: `data`, `trailers`, `excess`
- valid and `complete = false`: more must come
- invalid: `error`, the class in `prefork_lb.errors`, and `message`, a part of its text
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork_lb.wire.head import Fields, HeadLimits

FOLDER = Path(__file__).resolve().parent
KINDS = ("request", "response", "chunked")


@dataclass(frozen=True, slots=True)
class Case:
    kind: str
    name: str
    data: bytes
    expected: dict[str, Any]

    @property
    def limits(self) -> HeadLimits:
        return HeadLimits(**self.expected.get("limits", {}))

    @property
    def request_method(self) -> bytes:
        return latin(self.expected.get("request_method", "GET"))

    @property
    def is_complete(self) -> bool:
        return bool(self.expected.get("complete", True))

    def fields(self, key: str) -> Fields:
        """The fields under `key`."""
        return [(latin(name), latin(value)) for name, value in self.expected.get(key, [])]

    def __str__(self) -> str:
        return self.name


def latin(text: str) -> bytes:
    return text.encode("latin-1")


def cases(verdict: str, kind: str) -> list[Case]:
    """The cases of one folder, by name. Raises AssertionError when a file has no partner."""
    folder = FOLDER / verdict / kind
    stems = {path.stem for path in folder.iterdir()}
    for stem in stems:
        assert (folder / f"{stem}.http").is_file() and (folder / f"{stem}.toml").is_file(), (
            f"{folder / stem}: one of two files"
        )
    return [
        Case(
            kind,
            stem,
            (folder / f"{stem}.http").read_bytes(),
            tomllib.loads((folder / f"{stem}.toml").read_text("utf-8")),
        )
        for stem in sorted(stems)
    ]
