"""No two test processes share an address or a folder for shared memory."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from prefork_lb.shared.finding import DIRECTORY
from tests.support.place import HOST, REPOSITORY, clean_environment
from tests.support.reservation import Place, forget_the_shell

SHOW = "from prefork_lb.shared.finding import DIRECTORY; from tests.support.place import HOST; print(HOST, DIRECTORY)"


def test_this_process_has_an_address_and_a_folder_of_its_own() -> None:
    assert HOST.startswith("127.0.") and HOST != "127.0.0.1"
    assert DIRECTORY.name == f"prefork-lb-tests-{os.geteuid()}-{HOST.split('.')[2]}" and DIRECTORY.is_dir()


def test_its_children_are_there_too() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOW], cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True)
    assert shown.stdout.split() == [HOST, str(DIRECTORY)], shown.stderr


def test_a_run_on_the_pure_python_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFORK_LB_PURE", "1")
    monkeypatch.setenv("PREFORK_LB_CONFIG", "/nowhere")
    forget_the_shell()
    assert clean_environment()["PREFORK_LB_PURE"] == "1" and "PREFORK_LB_CONFIG" not in os.environ


def test_programs_under_test_keep_what_they_have_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_the_shell()
    assert "PYTHONDONTWRITEBYTECODE" not in clean_environment() and not sys.dont_write_bytecode


def test_another_process_gets_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Place()
    try:
        assert other.host != HOST and other.shared_memory != DIRECTORY
        with pytest.raises(OSError), socket.socket() as again:
            again.bind((other.host, 20_000))
    finally:
        other.leave()


def test_what_a_killed_run_left_in_the_folder_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TESTS_HOST", "PREFORK_LB_SHM"):
        monkeypatch.setenv(name, os.environ[name])  # put back at the end
    other = Place()
    other.shared_memory = tmp_path / "shm"
    try:
        other.shared_memory.mkdir()
        (other.shared_memory / "prefork-lb-0-1-1").touch()
        other.enter()
        assert list(other.shared_memory.iterdir()) == []
    finally:
        other.leave()
