"""Every import is held against the table in docs/architecture.md."""
from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = "prefork_lb"


@dataclass(frozen=True)
class Row:
    """Modules that may import one another, and all of lower layers; `only` narrows that down when it names some."""

    modules: tuple[str, ...]
    layer: int
    only: tuple[str, ...] = ()


def table(page: str) -> list[Row]:
    """The rows of the table in the page: modules | layer | imports only | what it is."""
    rows = []
    for modules, layer, only in re.findall(r"^\| ([\w\\., ]+) \| (\d+) \| ([\w., ]*)\|", page, re.MULTILINE):
        names = tuple(modules.replace("\\", "").split(", "))
        rows.append(Row(names, int(layer), tuple(only.strip().split(", ")) if only.strip() else ()))
    return rows


def sources() -> dict[str, str]:
    """Every module of the package by its dotted name below it."""
    root = REPOSITORY / PACKAGE
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path.read_text()
    return found


def imported(tree: ast.Module, modules: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The modules of this package that a module imports, and the name that it takes from each ("" for the whole of it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name.partition(".")[2] or "__init__", ""
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), ""
            elif node.module and node.module.split(".")[0] == PACKAGE:
                module = node.module.partition(".")[2]
                for alias in node.names:
                    inner = f"{module}.{alias.name}" if module else alias.name
                    if inner in modules:
                        yield inner, ""
                    else:
                        yield module or "__init__", alias.name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")  # `__call__`, and `_missing_` as enum has them, are public


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Private attributes that a module reads of something but defines nowhere itself: they are another module's."""
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined.add(node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in defined:
            yield node.attr


def row_for(name: str, row_of: Mapping[str, Row]) -> Row | None:
    """The row of a module: its own, or that of the nearest package around it."""
    parts = name.split(".")
    return next((row for end in range(len(parts), 0, -1) if (row := row_of.get(".".join(parts[:end])))), None)


def uses_of(attribute: str, modules: Mapping[str, str]) -> set[str]:
    """The modules that read or write an attribute of this name."""
    return {name for name, source in modules.items() for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and node.attr == attribute}


def problems(rows: list[Row], modules: Mapping[str, str]) -> list[str]:
    """What in the modules is against the table, one line each."""
    row_of = {name: row for row in rows for name in row.modules}
    found = []
    for name, source in modules.items():
        row = row_for(name, row_of)
        if row is None:
            found.append(f"{name}: has no row")
            continue
        tree = ast.parse(source)
        found += [f"{name}: uses {attribute}, which is private to another module" for attribute in private_uses(tree)]
        for target, taken in imported(tree, modules):
            if is_private(taken) or any(is_private(part) for part in target.split(".")):
                found.append(f"{name}: imports the private {target} {taken}".rstrip())
            other = row_for(target, row_of)
            if other is None:
                found.append(f"{name}: imports {target}, which has no row")
            elif other is row:
                continue
            elif row.only:
                if not any(target == allowed or target.startswith(f"{allowed}.") for allowed in row.only):
                    found.append(f"{name}: imports {target}, but may import only {', '.join(row.only)}")
            elif other.layer >= row.layer:
                found.append(f"{name} (layer {row.layer}): imports {target} (layer {other.layer})")
    return found


ROWS = table(PAGE.read_text())
MODULES = sources()


def test_every_import_goes_to_a_lower_layer() -> None:
    assert problems(ROWS, MODULES) == []


def test_what_is_kept_with_a_head_belongs_to_the_proxy() -> None:
    """`wire` has the slot and empties it; whose object lies in it nobody else has to know."""
    assert {name.split(".")[0] for name in uses_of("kept", MODULES) - {"wire.head"}} == {"proxy"}


def test_every_row_names_modules_that_exist_once() -> None:
    names = [name for row in ROWS for name in row.modules]
    assert len(names) == len(set(names))
    assert {name for name in names if "." not in name} == {name.split(".")[0] for name in MODULES}
    assert {name for name in names if "." in name} <= MODULES.keys()


def test_only_one_room_knows_gunicorns_modules() -> None:
    """So that a new version of gunicorn is looked at in one place."""
    takers = [name for name, source in MODULES.items() for node in ast.walk(ast.parse(source))
              if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gunicorn"
              or isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "gunicorn" for alias in node.names)]
    assert set(takers) == {"gunicorn.internals"}


def test_only_one_module_writes_the_line_of_a_field_that_came() -> None:
    """How a field line is written is one rule. Lines with a fixed name, such as Via, may stand where they are made."""
    writers = [name for name, source in MODULES.items() if r'b"%b: %b\r\n"' in source]
    assert writers == ["wire.field_lines"]


def test_the_package_itself_imports_only_what_decides_how_modules_are_loaded() -> None:
    """`import prefork_lb.shared` in a tool must not load the engine."""
    top_level = [node for node in ast.parse(MODULES["__init__"]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = [ast.unparse(node) for node in top_level]
    assert [line for line in imports if PACKAGE in line] == [f"from {PACKAGE}.native import translated"]


SMALL = [Row(("__init__",), 0, ("top",)), Row(("low",), 1), Row(("side", "side_more"), 2), Row(("narrow",), 2, ("low.part",)),
         Row(("top",), 3), Row(("top.base",), 0)]
SMALL_MODULES = {"__init__": "", "low": "", "low.part": "", "low.other": "", "side": "", "side_more": "", "narrow": "", "top": "",
                 "top.base": ""}


@pytest.mark.parametrize(("module", "source", "found"), [
    ("low.part", "from prefork_lb.side import x", ["low.part (layer 1): imports side (layer 2)"]),
    ("low.part", "def f():\n    import prefork_lb.top", ["low.part (layer 1): imports top (layer 3)"]),
    ("low.part", "from prefork_lb import top", ["low.part (layer 1): imports top (layer 3)"]),
    ("narrow", "from prefork_lb.side import x", ["narrow: imports side, but may import only low.part"]),
    ("narrow", "from prefork_lb.low import other", ["narrow: imports low.other, but may import only low.part"]),
    ("narrow", "from prefork_lb.low.part import x", []),
    ("side", "from prefork_lb.narrow import x", ["side (layer 2): imports narrow (layer 2)"]),
    ("side", "from prefork_lb.side_more import x\nfrom prefork_lb import __version__\nimport json", []),
    ("side", "from prefork_lb.low import _x", ["side: imports the private low _x"]),
    ("side", "from prefork_lb.missing import x", ["side: imports missing, which has no row"]),
    ("side", "from .low import x", ["side: imports .low, which has no row"]),
    ("side", "def f(ledger):\n    return ledger._row", ["side: uses _row, which is private to another module"]),
    ("side", "class C:\n    def __init__(self): self._row = 1\n    def f(self, other): return other._row", []),
    ("new", "", ["new: has no row"]),
    ("low", "from prefork_lb.top.base import x", []),
    ("top.base", "from prefork_lb.low import x", ["top.base (layer 0): imports low (layer 1)"]),
])
def test_what_is_against_the_table_is_found(module: str, source: str, found: list[str]) -> None:
    assert problems(SMALL, {**SMALL_MODULES, module: source}) == found
