"""Modules of the package that mypyc has translated to C. What runs is the same source, without the interpreter.

setup.py has their list and translates them when the package is built; without a compiler Python runs their sources.
`prefork_lb/translated/` has them, beside the digests of the sources that they were made of. They know the layout of each other's
objects, so one source that has changed since turns all of them off.
"""
from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from prefork_lb.native.switches import is_interpreted

_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIX = EXTENSION_SUFFIXES[0]  # of this interpreter


class Finder:
    """Finds the translated modules before their sources."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        file = self._files.get(name)
        return None if file is None else spec_from_file_location(name, file)


def in_use() -> bool:
    """Whether this process has the translated modules."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def use() -> None:
    """Let imports find the translated modules, where there are any and they fit. To be called before the first such import."""
    if not is_interpreted() and not in_use() and (files := found(_PACKAGE)):
        sys.meta_path.insert(0, Finder(files))


def found(package: Path) -> dict[str, Path]:
    """The translated modules of a package's folder for this interpreter, and the library that they share: files by name.

    Empty when there are none, or when a source is not the one that was translated.
    """
    folder = package / "translated"
    try:
        digests: dict[str, str] = json.loads((folder / f"sources{_SUFFIX}.json").read_text())
        for source, digest in digests.items():
            if hashlib.sha256((package.parent / source).read_bytes()).hexdigest() != digest:
                return {}
    except FileNotFoundError:
        return {}
    files = {".".join(file.relative_to(folder).parts)[:-len(_SUFFIX)]: file for file in folder.rglob(f"*{_SUFFIX}")}
    return files if len(files) == len(digests) + 1 else {}
