"""How the modules in C are found, and what is said when they are not."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import prefork_lb.native
from prefork_lb.native import loader, translated
from prefork_lb.native.loader import MODULES, compiled, native, native_chunks, native_heads, native_loop, native_tally
from prefork_lb.native.switches import PURE


@pytest.mark.skipif(os.environ.get("PREFORK_LB_NATIVE") != "required", reason="only where they must have been built (CI)")
def test_the_compiled_modules_are_there() -> None:
    assert native() is not None and native_heads() is not None and native_chunks() is not None and native_tally() is not None
    assert native_loop() is not None


def test_every_c_file_is_a_module() -> None:
    assert sorted(file.stem for file in Path(loader.__file__).parent.glob("*.c")) == sorted(MODULES)


def test_they_are_left_out_when_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translated, "in_use", lambda: True)
    monkeypatch.setenv(PURE, "1")
    assert native() is native_heads() is native_chunks() is native_tally() is None
    assert not compiled()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the modules are looked for; it is empty."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, f"prefork_lb.native.{name}", raising=False)
        monkeypatch.delattr(prefork_lb.native, name, raising=False)
    monkeypatch.setattr(prefork_lb.native, "__path__", [str(tmp_path)])
    monkeypatch.setattr(loader, "_told", set())
    monkeypatch.setattr(translated, "in_use", lambda: True)
    monkeypatch.delenv(PURE, raising=False)
    return tmp_path


def test_a_module_that_was_not_built_is_done_without(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert native() is native_heads() is native_chunks() is native_tally() is None
    assert not compiled()
    assert caplog.records == []


def test_a_module_that_cannot_be_loaded_is_told_once(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was built for another Python or C library, or its file is damaged: the operator thinks that it works."""
    from importlib.machinery import EXTENSION_SUFFIXES

    (elsewhere / f"claims{EXTENSION_SUFFIXES[0]}").write_bytes(b"no ELF")
    assert native() is native() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "prefork_lb.native.claims cannot be loaded" in caplog.text
