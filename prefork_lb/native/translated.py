"""Modules of the package that mypyc has translated to C. What runs is the same source, without the interpreter.

setup.py has their list and translates them when the package is built; without a compiler Python runs their sources.
`prefork_lb/translated/` has them, beside the digests of the sources that they were made of. They know the layout of each other's
objects, so one source that has changed since turns all of them off.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from prefork_lb.native.switches import is_interpreted

_PACKAGE = Path(__file__).resolve().parents[1]
_PREFIX = "prefork_lb"  # the library that they share begins with it, too
_SUFFIX = EXTENSION_SUFFIXES[0]  # of this interpreter


class TranslatedFinder:
    """Finds the translated modules before their sources. It reads the sources when the first of them is imported: the controller
    and most commands import none."""

    def __init__(self, package: Path) -> None:
        """`package` is the folder of the package."""
        self._package = package
        self._files: dict[str, Path] | None = None  # None: not read yet

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if self._files is None:
            file = self._package.joinpath("translated", *name.split(".")).with_suffix(_SUFFIX)
            if not name.startswith(_PREFIX) or not file.exists():
                return None
        found_file = self.files.get(name)
        return None if found_file is None else spec_from_file_location(name, found_file)

    @property
    def files(self) -> dict[str, Path]:
        """What `found` gives for the package."""
        if self._files is None:
            self._files = found(self._package)
        return self._files


def in_use() -> bool:
    """Whether this process has the translated modules."""
    return any(isinstance(finder, TranslatedFinder) and bool(finder.files) for finder in sys.meta_path)


def use() -> None:
    """Let imports find the translated modules, where there are any and they fit. To be called before the first such import."""
    if not is_interpreted() and not any(isinstance(finder, TranslatedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TranslatedFinder(_PACKAGE))


def found(package: Path) -> dict[str, Path]:
    """The translated modules of a package's folder for this interpreter, and the library that they share: files by name.

    Empty when there are none, or when a source is not the one that was translated.
    """
    import hashlib  # half a MiB
    import json

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
