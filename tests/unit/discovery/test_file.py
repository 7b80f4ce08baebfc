"""Lists in files, and when a change of one is seen."""
from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork_lb.discovery.file import FileSource
from prefork_lb.discovery.file_watch import Watch, way_to
from prefork_lb.discovery.finder import Finder
from prefork_lb.discovery.source import MOST_BYTES, ListError
from tests.support.waiting import wait_until

A, B, C = '["10.0.0.1:80"]', '["10.0.0.1:80", "10.0.0.2:80"]', '["10.0.0.3:80"]'


@pytest.fixture(params=[True, False], ids=["inotify", "polling"])
def with_inotify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        def refuse(path: str) -> None:
            raise OSError("no inotify")
        monkeypatch.setattr("prefork_lb.discovery.file.Watch", refuse)
    return bool(request.param)


class Found:
    """What a finder finds in a file."""

    def __init__(self, path: Path) -> None:
        self.finder = Finder("web", lambda: FileSource(str(path), 5.0), 1, 5.0)

    def wait_for(self, text: str) -> None:
        expected = set(text.strip('[]"').replace('"', "").split(", "))
        wait_until(lambda: set(self.finder.outcome.servers or ()) == expected and not self.finder.outcome.error,
                   lambda: f"{expected}: {self.finder.outcome}", 20)

    def wait_for_error(self, text: str) -> None:
        wait_until(lambda: text in self.finder.outcome.error, lambda: f"{text}: {self.finder.outcome}", 20)


@pytest.fixture
def found(tmp_path: Path, with_inotify: bool) -> Iterator[Callable[[Path], Found]]:
    made: list[Found] = []

    def make(path: Path) -> Found:
        made.append(Found(path))
        return made[-1]

    yield make
    for each in made:
        each.finder.close()


def replace(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.rename(path)


def test_a_file_that_is_written_or_replaced_is_read_again(tmp_path: Path, found: Callable[[Path], Found]) -> None:
    path = tmp_path / "servers.json"
    path.write_text(A)
    seen = found(path)
    seen.wait_for(A)
    path.write_text(B)
    seen.wait_for(B)
    replace(path, C)
    seen.wait_for(C)
    path.unlink()
    seen.wait_for_error("cannot be read: No such file")
    path.write_text(A)
    seen.wait_for(A)


def test_a_link_that_is_turned_is_followed_as_kubernetes_does_it(tmp_path: Path, found: Callable[[Path], Found]) -> None:
    for number, text in enumerate((A, B)):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "servers.json").write_text(text)
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "servers.json").symlink_to("..data/servers.json")
    seen = found(tmp_path / "servers.json")
    seen.wait_for(A)
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    seen.wait_for(B)


def test_a_folder_may_go_and_come_back(tmp_path: Path, found: Callable[[Path], Found]) -> None:
    folder = tmp_path / "a" / "b"
    seen = found(folder / "servers.json")
    seen.wait_for_error("cannot be read")
    folder.mkdir(parents=True)
    (folder / "servers.json").write_text(A)
    seen.wait_for(A)
    (tmp_path / "a").rename(tmp_path / "gone")
    seen.wait_for_error("cannot be read")
    (tmp_path / "gone" / "b" / "servers.json").write_text(B)
    (tmp_path / "gone").rename(tmp_path / "a")
    seen.wait_for(B)


def test_half_a_file_is_never_told(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text(A)
    seen = Found(path)
    seen.wait_for(A)
    with path.open("w") as file:
        for part in (B[:7], B[7:20], B[20:]):
            file.write(part)
            file.flush()
    seen.wait_for(B)
    # Written in two steps: what is there in between is read, and read again before it is told.
    path.write_text(C[:5])
    replace(path, C)
    seen.wait_for(C)
    seen.finder.close()


@pytest.mark.parametrize(("make", "problem"), [
    (lambda path: path.mkdir(), "Is a directory"),
    (lambda path: os.mkfifo(path), "not a regular file"),
    (lambda path: path.write_bytes(b" " * (MOST_BYTES + 1)), "longer than 4 MiB"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 100 << 20), "longer than 4 MiB"),
])
def test_what_is_no_list_is_told(tmp_path: Path, make: Callable[[Path], object], problem: str) -> None:
    path = tmp_path / "servers.json"
    make(path)
    source = FileSource(str(path), 5.0)
    with pytest.raises(ListError, match=problem):
        source.look()
    source.close()


def test_a_wait_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    source, stop = FileSource(str(tmp_path / "servers.json"), 5.0), threading.Event()
    with pytest.raises(ListError):
        source.look()
    begun = time.monotonic()
    source.wait(0.01, stop)  # the time of a look after a failure
    stop.set()
    source.wait(1000, stop)
    assert time.monotonic() - begun < 20
    source.close()


def test_a_watch_may_have_a_high_descriptor(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        for _ in range(1024):
            clean_up.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        watch = Watch(str(tmp_path / "servers.json"))
        clean_up.callback(watch.close)
        assert not watch.wait(0)
        (tmp_path / "servers.json").write_text(A)
        assert watch.wait(20)


def test_the_way_to_a_file_goes_by_every_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "here").symlink_to("../other/./x.json")
    way = way_to(str(tmp_path / "link" / "here"))
    assert [(folder, name) for folder, name in way if folder.startswith(str(tmp_path))] == [
        (str(tmp_path), "link"), (str(tmp_path), "real"), (str(tmp_path / "real"), "here"), (str(tmp_path), "other"),
        (str(tmp_path / "other"), "x.json")]
