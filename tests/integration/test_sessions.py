"""Logins in the memory of real application servers, behind several workers: none is lost while its server lives."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.shared.finding import visible_segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table_lookup import slots_by_key
from tests.support import processes
from tests.support.balancer import PROXY, Balancer, FrontEnd
from tests.support.instances import instances
from tests.support.rig import Rig
from tests.support.visitors import SessionServer, Visitor, log_in, visit
from tests.support.waiting import wait_until

VISITORS = int(os.environ.get("SESSION_VISITORS", "24"))
TIMES = int(os.environ.get("SESSION_LOOKS", "6"))
WORKERS = 4
MODES = {"cookie": 'mode = "cookie"', "route": 'mode = "route"\ncookie = "sid"', "learn": 'mode = "learn"\ncookie = "sid"'}
AS_DAEMON = {"GUNICORN_FD": "none"}  # gunicorn obeys WINCH as a daemon only


class Site:
    """Servers with logins in their memory, and a balancer with a pool for each mode of sessions."""

    def __init__(self, balancer: Balancer, servers: list[SessionServer]) -> None:
        self.balancer, self.servers = balancer, servers
        self._visitors = 0

    def address(self) -> tuple[str, int]:
        return self._address

    def visitors(self, mode: str, count: int = VISITORS) -> list[Visitor]:
        """So many with a login each."""
        self._address = self.balancer.address
        self._visitors += count
        made = [Visitor(f"v{self._visitors - number}", f"{mode}.test", self.address) for number in range(count)]
        log_in(made)
        return made

    def drain(self, server: SessionServer, mode: str, state: Admin = Admin.DRAIN) -> None:
        """As `prefork-lb drain` does it, without a process of its own."""
        segment = next(found for found in visible_segments() if self.balancer.master in found.masters())
        ledger, states = Ledger(segment, takes_row=False), States(segment)
        with ledger.locked():
            states.set_admin(slots_by_key(segment)[mode, server.address], state)


def configuration(servers: list[SessionServer]) -> str:
    listed = ", ".join(f'{{ address = "{server.address}", route = "{server.route}" }}' for server in servers)
    return "\n".join(
        f'[pools.{mode}]\nservers = [{listed}]\nretries.attempts = 3\n[pools.{mode}.sticky]\n{text}\n'
        f'[[routes]]\nhosts = ["{mode}.test"]\npool = "{mode}"\n' for mode, text in MODES.items())


@pytest.fixture(scope="module")
def site(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    servers = [SessionServer(route) for route in "abc"]
    try:
        with Rig(tmp_path_factory.mktemp("sessions")) as rig:
            yield Site(rig.balancer(configuration(servers), front_end, workers=WORKERS,
                                    extra=["--pid", "gunicorn.pid", "--daemon"], environ=AS_DAEMON), servers)
    finally:
        for server in servers:
            server.kill()


def routes(visitors: list[Visitor]) -> dict[str, int]:
    return {route: sum(visitor.routes[-1] == route for visitor in visitors) for route in "abc"}


def assert_nothing_lost(visitors: list[Visitor]) -> None:
    assert {visitor.name: visitor.lost for visitor in visitors if visitor.lost} == {}
    assert sum(visitor.foreign for visitor in visitors) == 0
    assert sum(visitor.leaked for visitor in visitors) == 0


@pytest.mark.parametrize("mode", MODES)
def test_no_login_is_lost(site: Site, mode: str) -> None:
    visitors = site.visitors(mode)
    visit(visitors, TIMES)
    assert_nothing_lost(visitors)
    assert min(routes(visitors).values()) > 0
    assert {visitor.given for visitor in visitors} == {1 if mode == "cookie" else 0}


@pytest.mark.parametrize("mode", MODES)
def test_a_drained_server_keeps_its_logins_and_gets_no_new_ones(site: Site, mode: str) -> None:
    visitors = site.visitors(mode)
    drained = site.servers[0]
    try:
        visit(visitors, 2, lambda: site.drain(drained, mode))
        newcomers = site.visitors(mode)
        visit([*visitors, *newcomers], 2)
    finally:
        site.drain(drained, mode, Admin.READY)
    assert_nothing_lost([*visitors, *newcomers])
    assert routes(visitors)["a"] > 0 == routes(newcomers)["a"]


@pytest.mark.parametrize("spoiled", ["forged", "truncated", "foreign"])
def test_a_bad_cookie_is_a_new_session(site: Site, spoiled: str) -> None:
    [visitor, other] = site.visitors("cookie", 2)
    value = visitor.jar["prefork_lb"]
    visitor.jar["prefork_lb"] = {"forged": "A" * 16 + value[16:], "truncated": value[:-3], "foreign": "x.y.z"}[spoiled]
    given = visitor.given
    visitor.log_in()
    assert visitor.given == given + 1
    visit([visitor, other], 2)
    assert_nothing_lost([visitor, other])


def test_workers_that_are_killed_or_replaced_lose_no_login(site: Site) -> None:
    balancer = site.balancer
    visitors = [visitor for mode in MODES for visitor in site.visitors(mode, VISITORS // 2)]

    def trouble() -> None:
        killed = balancer.workers()[0]
        balancer.kill_worker(killed, signal.SIGKILL)
        balancer.wait_for_workers(WORKERS, without=[killed])
        balancer.reload()

    visit(visitors, 2, trouble)
    assert_nothing_lost(visitors)


def test_a_secret_file_that_is_gone_loses_no_login_and_no_worker(rig: Rig, tmp_path: Path) -> None:
    """Neither when a worker is replaced, nor at a reload: both keep what the master has read."""
    servers = [SessionServer(route) for route in "abc"]
    try:
        secret = tmp_path / "secret"
        secret.write_text("a secret of the site, number 1\n")
        text = configuration(servers).replace('mode = "cookie"', f'mode = "cookie"\nsecret_file = "{secret}"')
        balancer = rig.balancer(text, PROXY, workers=2)
        visitors = Site(balancer, servers).visitors("cookie", 6)
        secret.unlink()
        killed = balancer.workers()[0]
        balancer.kill_worker(killed)
        balancer.wait_for_workers(2, without=[killed])
        visit(visitors, 2)
        old = balancer.workers()
        balancer.reload()
        wait_until(lambda: not any(map(processes.is_running, old)), "the old workers end", 20)
        visit(visitors, 2)
        assert_nothing_lost(visitors)
        assert f"{secret}: cannot be read" in balancer.log()
    finally:
        for server in servers:
            server.kill()


def test_an_upgrade_loses_no_login(site: Site) -> None:
    """USR2: a new master with its workers beside the old one, then the old one ends its workers."""
    if site.balancer.front_end is not PROXY:
        pytest.skip("the memory that outlives it is the same for each worker class")
    balancer = site.balancer
    visitors = [visitor for mode in MODES for visitor in site.visitors(mode, VISITORS // 2)]
    pid_file = balancer.folder / "gunicorn.pid.2"
    new: list[int] = []

    def upgrade() -> None:
        os.kill(balancer.master, signal.SIGUSR2)
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), lambda: f"a new master\n{balancer.log()}")
        new.append(int(pid_file.read_text()))
        wait_until(lambda: len(joined(new[0])) == WORKERS, lambda: f"its workers\n{balancer.log()}")
        os.kill(balancer.master, signal.SIGWINCH)
        wait_until(lambda: not old_workers(), "the old workers end")

    def old_workers() -> set[int]:
        return set(balancer.workers()) - set(new)  # the new master is a child of the old one

    try:
        visit(visitors, 2, upgrade)
    finally:
        if new:
            os.kill(balancer.master, signal.SIGHUP)
            wait_until(lambda: len(joined(balancer.master)) == WORKERS, "the old master has workers again")
            os.kill(new[0], signal.SIGQUIT)
            wait_until(lambda: not processes.is_running(new[0]), "the new master ends", 30)
    assert_nothing_lost(visitors)


def joined(master: int) -> set[int]:
    """The workers of a master that have joined an instance."""
    return set(processes.children(master)) & {worker.pid for instance in instances() for worker in instance.workers}


def test_only_the_sessions_of_a_killed_server_move_and_each_once(site: Site) -> None:
    """Last: the servers are the module's."""
    visitors = [visitor for mode in MODES for visitor in site.visitors(mode)]
    before = {visitor.name: visitor.routes[-1] for visitor in visitors}
    killed = site.servers[0]
    visit(visitors, 3, killed.kill)
    visit(visitors, 3)
    try:
        moved = {visitor.name: visitor.lost for visitor in visitors}
        assert moved == {name: int(route == killed.route) for name, route in before.items()}
        assert routes(visitors)[killed.route] == 0
        assert sum(visitor.foreign + visitor.leaked for visitor in visitors) == 0
    finally:
        site.servers[0] = SessionServer(killed.route, killed.port)
