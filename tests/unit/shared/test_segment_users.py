"""Files of other users at a segment's place."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY, open_segment, segment_names
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import SegmentError
from tests.unit.shared.conftest import ROWS, SERVERS, attach, write
from tests.unit.shared.processes import Child, Master


@pytest.fixture
def other_uid(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """This process believes that it is another user; its files say otherwise."""
    uid = os.geteuid() + 4242
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    yield uid
    for path in DIRECTORY.glob(f"prefork-lb-{uid}*"):
        path.unlink()


def test_a_lock_file_of_another_user_is_refused(master: Master, other_uid: int) -> None:
    """Whoever holds it could stop every start; the file's name alone says nothing of whose it is."""
    (DIRECTORY / f"prefork-lb-{other_uid}.lock").touch()
    with pytest.raises(SegmentError, match=rf"prefork-lb-{other_uid}\.lock: belongs to another user \(uid \d+\); remove it"):
        attach(master)
    assert segment_names(other_uid) == []


def test_a_lock_file_that_is_a_link_is_not_followed(master: Master, other_uid: int, tmp_path: Path) -> None:
    (DIRECTORY / f"prefork-lb-{other_uid}.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentError, match="prefork_lb needs to write to /"):
        attach(master)
    assert not (tmp_path / "elsewhere").exists()


def test_a_segment_that_another_user_laid_under_our_name_is_not_ours(master: Master, other_uid: int) -> None:
    """The name can be foreseen; memory that a stranger can write to would let him into this process."""
    attached = Layout(ROWS, SERVERS, SERVERS)
    laid = DIRECTORY / f"prefork-lb-{other_uid}-{master.pid}-{master.started}"
    write(laid, {at.H_MAGIC: at.MAGIC, at.H_VERSION: at.VERSION, at.H_ROWS: ROWS, at.H_SERVERS: SERVERS,
                 at.H_POOLS: SERVERS, at.H_MASTERS: master.pid, at.H_MASTERS + 1: master.started}, attached.size)
    assert segment_names(other_uid) == []
    assert laid.name not in segment_names()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_users_segment_cannot_be_opened(master: Master, file: Path) -> None:
    attach(master)

    def look() -> None:
        os.setuid(65534)
        with pytest.raises(SegmentError, match=f"{file}: Permission denied; it belongs to another user"):
            open_segment(file.name)

    assert Child(look).wait() == 0
