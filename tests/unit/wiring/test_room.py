"""How much shared memory a configuration asks for, and what a running instance has no room for."""
from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from prefork_lb.cli.check_room import room_notices
from prefork_lb.config.admin import AdminConfig
from prefork_lb.config.load import load
from prefork_lb.config.model import Config
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.shared import published_config
from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.room import most_workers, packed, problems_at_reload, room_for
from tests.unit.shared.processes import Master

KIB = 1024
INSTALL = Path(__file__).resolve().parents[3] / "docs" / "install.md"


def config(servers: int, pools: int = 1, suffix: str = "") -> Config:
    """So many servers in each of so many pools."""
    addresses = [f'"10.{n // 250}.{n % 250}.7{suffix}:8080"' for n in range(servers)]
    parts = [f"[pools.p{number}]\nservers = [{', '.join(addresses)}]\n" for number in range(pools)]
    parts += [f'[[routes]]\npool = "p{number}"\nhosts = ["h{number}.test"]\n' for number in range(pools)]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("\n".join(parts))
        file.flush()
        return msgspec.structs.replace(load(file.name), source="prefork_lb.toml")


@pytest.mark.parametrize("servers", [256, 500, 2000])
def test_a_server_takes_4_kib_at_most_for_8_workers(servers: int) -> None:
    """Beside what does not grow with their number."""
    room = room_for(config(servers), 8)
    assert room.size - dataclasses.replace(room, servers=0).size <= servers * 4 * KIB


def _rows_of_install() -> list[tuple[int, int, float, float]]:
    """Workers, servers, MiB without statistics and MiB with them, from the table in docs/install.md."""
    rows = re.findall(r"^ *\| (\d+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|$", INSTALL.read_text(), re.MULTILINE)
    return [(int(workers), int(servers.replace(",", "")), float(without), float(with_them))
            for workers, servers, without, with_them in rows]


@pytest.mark.parametrize(("workers", "servers", "without", "with_them"), _rows_of_install())
def test_the_manual_says_how_much_memory_a_start_takes(workers: int, servers: int, without: float, with_them: float) -> None:
    plain = config(servers)
    counted = msgspec.structs.replace(plain, admin=AdminConfig(bind="127.0.0.1:9900"))
    assert room_for(plain, workers).size / (KIB * KIB) == pytest.approx(without, rel=0.15)
    assert room_for(counted, workers).size / (KIB * KIB) == pytest.approx(with_them, rel=0.15)


def test_few_servers_take_little_and_may_become_256() -> None:
    room = room_for(config(2), 8)
    assert room.servers == 256 and room.size <= 768 * KIB


@pytest.mark.parametrize("workers", [1, 8, 160, 256])
def test_there_are_rows_for_twice_the_workers_and_more(workers: int) -> None:
    room = room_for(config(2), workers)
    assert room.rows > 2 * workers + room.rows // 3 and most_workers(room) > workers


@pytest.mark.parametrize(("servers", "pools"), [(300, 1), (3, 100)])
def test_all_servers_and_pools_may_be_replaced_at_once(master: Master, servers: int, pools: int) -> None:
    before = config(servers, pools)
    membership = Membership(master.pid, 0, room_for(before, 2), one_thread=True)
    membership.put_into_force(before)
    assert configuration_of(membership.segment) == before
    text = config(servers, pools, suffix="7")
    assert problems_at_reload(text, 2, membership.segment) == []
    membership.put_into_force(text)
    assert configuration_of(membership.segment) == text


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    remove_segment(made.pid)
    made.kill()


@pytest.fixture
def running(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(32, 8, 2, configuration_bytes=len(packed(config(2))) // 8 * 8 + 8))


@pytest.mark.parametrize(("asked", "workers", "problem"), [
    (lambda: config(9), 1, "room for 8 servers only"),
    (lambda: config(1, pools=3), 1, "room for 2 pools only"),
    (lambda: config(2), 17, "room for 16 workers only"),
    (lambda: config(8, pools=1), 1, "room for a configuration of"),
], ids=["servers", "pools", "workers", "text"])
def test_what_a_running_instance_has_no_room_for_is_told(
    running: Segment, asked: Callable[[], Config], workers: int, problem: str
) -> None:
    assert problems_at_reload(config(2), 16, running) == []
    found = problems_at_reload(asked(), workers, running)
    assert any(line.startswith(problem) and "restart gunicorn to make more" in line for line in found), found


def test_a_configuration_that_this_version_cannot_read_is_none(
    running: Segment, master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    membership = Membership(master.pid, 0, running.layout, one_thread=True)
    published_config.publish(membership.segment, membership.ledger, b'{"pools": 7}')
    assert configuration_of(membership.segment) is None
    assert "cannot be read by this version" in caplog.text


def test_a_start_that_finds_no_room_in_dev_shm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_notices(config(2)) == []
    monkeypatch.setattr(Layout, "size", property(lambda layout: 1 << 50))
    (line,) = room_notices(config(2))
    assert line.startswith(f"{DIRECTORY}: a start needs 1073741824.0 MiB and ") and "remount" in line


def test_a_reload_to_a_policy_by_times_needs_their_room_from_the_start(master: Master) -> None:
    plain = config(2)
    timed = msgspec.structs.replace(plain, pools={"p0": msgspec.structs.replace(plain.pools["p0"], policy="peak-ewma")})
    room = room_for(plain, 2)
    assert (room.answer_times, room_for(timed, 2).answer_times) == (0, 1)
    membership = Membership(master.pid, 0, room, one_thread=True)
    membership.put_into_force(plain)
    (problem,) = problems_at_reload(timed, 2, membership.segment)
    assert "no room for the times of answers that the policy of the pool p0 goes by" in problem
    with pytest.raises(SegmentError, match="restart gunicorn"):
        membership.put_into_force(timed)
    assert configuration_of(membership.segment) == plain


def test_statistics_take_room_only_with_admin(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    """A reload that adds it puts the rest of the configuration into force."""
    without = config(2)
    asked = msgspec.structs.replace(without, admin=AdminConfig(bind="127.0.0.1:9900"))
    assert room_for(asked, 2).size > room_for(without, 2).size
    assert (room_for(without, 2).statistics, room_for(asked, 2).statistics) == (0, 1)
    membership = Membership(master.pid, 0, room_for(without, 2), one_thread=True)
    membership.put_into_force(without)
    assert "no room for statistics" not in caplog.text
    membership.put_into_force(asked)
    assert configuration_of(membership.segment) == asked
    assert "no room for statistics" in caplog.text
