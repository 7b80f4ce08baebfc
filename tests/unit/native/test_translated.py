"""When the modules that mypyc has translated are used: all of them while every source is the one that was translated, or none."""
from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import prefork_lb
from prefork_lb.native.translated import TranslatedFinder, found, in_use

PACKAGE = Path(prefork_lb.__file__).parent
SUFFIX = EXTENSION_SUFFIXES[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two translated modules."""
    package, digests = tmp_path / "prefork_lb", {}
    library = package / "translated" / f"prefork_lb__mypyc{SUFFIX}"
    wire = package / "translated" / "prefork_lb" / "wire"
    for file in (library, *(wire / f"{name}{SUFFIX}" for name in ("memo", "field_lines"))):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    for name in ("memo", "field_lines"):
        source = package / "wire" / f"{name}.py"
        source.parent.mkdir(exist_ok=True)
        source.write_text(name)
        digests[f"prefork_lb/wire/{name}.py"] = hashlib.sha256(name.encode()).hexdigest()
    (package / "translated" / f"sources{SUFFIX}.json").write_text(json.dumps(digests))
    return package


def test_they_are_found_by_the_names_of_their_sources(package: Path) -> None:
    files = found(package)
    assert sorted(files) == ["prefork_lb.wire.field_lines", "prefork_lb.wire.memo", "prefork_lb__mypyc"]
    finder = TranslatedFinder(package)
    assert finder.find_spec("prefork_lb.wire.head") is None
    for name in ("prefork_lb.wire.memo", "prefork_lb__mypyc"):
        spec = finder.find_spec(name)
        assert spec is not None and spec.origin == str(files[name])
    assert finder.find_spec("prefork_lb.wire.head") is None


def test_the_sources_are_read_when_the_first_one_is_imported(package: Path) -> None:
    """The controller and most commands import none."""
    finder = TranslatedFinder(package)
    (package / "wire" / "memo.py").rename(package / "elsewhere.py")
    assert finder.find_spec("prefork_lb.wire") is None
    assert finder.find_spec("json") is None
    (package / "elsewhere.py").rename(package / "wire" / "memo.py")
    assert finder.find_spec("prefork_lb.wire.field_lines") is not None


def test_none_is_found_after_a_source_has_changed(package: Path) -> None:
    (package / "wire" / "memo.py").write_text("")
    finder = TranslatedFinder(package)
    assert finder.find_spec("prefork_lb.wire.field_lines") is None
    assert finder.files == {}


def test_one_changed_source_turns_all_of_them_off(package: Path) -> None:
    with (package / "wire" / "memo.py").open("a") as source:
        source.write(" ")
    assert found(package) == {}


@pytest.mark.parametrize("missing", [
    "wire/memo.py", f"translated/sources{SUFFIX}.json", f"translated/prefork_lb/wire/memo{SUFFIX}",
    f"translated/prefork_lb__mypyc{SUFFIX}"])
def test_one_missing_file_turns_all_of_them_off(package: Path, missing: str) -> None:
    (package / missing).unlink()
    assert found(package) == {}


def test_those_of_another_interpreter_are_left_alone(package: Path) -> None:
    (package / "translated" / "prefork_lb" / "wire" / "memo.cpython-399-x86_64-linux-gnu.so").write_bytes(b"")
    (package / "translated" / "sources.cpython-399-x86_64-linux-gnu.so.json").write_text(json.dumps({"prefork_lb/none.py": ""}))
    assert len(found(package)) == 3


@pytest.mark.parametrize("switch", ["PREFORK_LB_PURE", "PREFORK_LB_INTERPRETED"])
def test_they_are_left_out_when_they_are_not_wanted(switch: str) -> None:
    code = "import prefork_lb.wire.memo as memo; from prefork_lb.native.translated import in_use; print(in_use(), memo.__file__)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={switch: "1"})
    assert shown.stdout.startswith("False ") and shown.stdout.endswith("/prefork_lb/wire/memo.py\n")


def test_tests_run_without_them() -> None:
    """See tests/conftest.py."""
    assert not in_use()


def translated_sources() -> set[str]:
    """TRANSLATED of setup.py, which cannot be imported without building."""
    for node in ast.parse((PACKAGE.parent / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TRANSLATED":
            return set(eval(ast.unparse(node.value)))
    raise AssertionError("setup.py sets no TRANSLATED")


def test_what_is_to_be_translated_is_there() -> None:
    assert [source for source in translated_sources() if not (PACKAGE.parent / source).is_file()] == []


def test_no_class_that_runs_in_python_derives_from_a_translated_one() -> None:
    """The start would end with a TypeError, when the class is made."""
    translated, found_bases = translated_sources(), []
    for file in PACKAGE.rglob("*.py"):
        source, origins = str(file.relative_to(PACKAGE.parent)), {}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                origins.update({name.asname or name.name: node.module.replace(".", "/") + ".py" for name in node.names})
            elif isinstance(node, ast.ClassDef) and source not in translated:
                bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
                found_bases += [(source, base) for base in bases if origins.get(base) in translated]
    assert found_bases == []
