"""Servers that are listed elsewhere, under load, while lists change, break and vanish."""
from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.balancer import PROXY, Balancer
from tests.support.instances import instance_of
from tests.support.kept_load import Exchange, KeptLoad
from tests.support.load import Load
from tests.support.name_server import NameServer
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SECONDS = 20.0
NAME = "_http._tcp.app.internal"
List = Callable[[list[str]], None]


def present(balancer: Balancer) -> set[str]:
    """The servers of the pool that are not leaving."""
    return {server.address for server in instance_of(balancer.master).servers if not server.leaving}


def wait_for_error(balancer: Balancer, text: str) -> None:
    def error() -> str:
        discovery = instance_of(balancer.master).pools[0].discovery
        return discovery.error if discovery is not None else ""

    wait_until(lambda: text in error(), lambda: f"{text}: {error()}", SECONDS)


def wait_for(balancer: Balancer, addresses: set[str]) -> None:
    wait_until(lambda: present(balancer) == addresses, lambda: f"{addresses}, {present(balancer)}\n{balancer.log()}", SECONDS)


def in_file(path: Path) -> List:
    def write(addresses: list[str]) -> None:
        fresh = path.with_name("fresh")
        fresh.write_text(json.dumps([{"targets": addresses, "labels": {"job": "web"}}]))
        fresh.rename(path)
    return write


def in_zone(server: NameServer) -> List:
    def write(addresses: list[str]) -> None:
        server.set(NAME, "SRV", [f"0 1 {address.rpartition(':')[2]} a.internal." for address in addresses], 0)
        server.set("a.internal", "A", [addresses[0].rpartition(":")[0]] if addresses else [], 0)
    return write


def change(balancer: Balancer, origin: Origin, write: List, times: int, in_between: Callable[[int], None]) -> None:
    """Change the list under load; no request may fail."""
    rng = random.Random(9)
    kept = (Exchange("/sleep?seconds=0.01&n=40", length=40),)
    with Load(balancer.address, 2, "/sleep?seconds=0.005", pause_s=0.005) as load, \
            KeptLoad(balancer.address, 2, kept, pause_s=0.005) as keeping:
        for number in range(times):
            addresses = rng.sample(origin.addresses, rng.randint(1, len(origin.addresses)))
            write(addresses)
            wait_for(balancer, set(addresses))
            in_between(number)
            load.wait_for_successes(2, SECONDS)
            assert present(balancer) == set(addresses)
        assert load.failures == [] and keeping.failures == []


def test_a_file_that_changes_breaks_and_vanishes_fails_no_request(rig: Rig) -> None:
    origin, path = rig.origin(5), rig.folder / "servers.json"
    write = in_file(path)
    write(origin.addresses[:2])
    text = f'[pools.web]\nretries = {{ attempts = 1 }}\n[pools.web.discovery]\nfile = "{path}"\n'
    balancer = rig.balancer(text, PROXY, workers=2)
    wait_for(balancer, set(origin.addresses[:2]))

    def in_between(number: int) -> None:
        if number == 1:
            path.unlink()
            wait_until(lambda: "its servers stay as they are" in balancer.log(), "the lack is told", SECONDS)
        elif number == 2:
            path.write_text("[]")
            wait_for_error(balancer, "fewer than 1")
        elif number == 3:
            path.write_text('[{"targets": ["garb')
            wait_for_error(balancer, "not JSON")
        elif number == 4:
            os.kill(balancer.status().instance["controller"], signal.SIGKILL)
        elif number == 5:
            balancer.reload()

    change(balancer, origin, write, 8, in_between)


def test_a_zone_that_changes_fails_no_request(rig: Rig) -> None:
    origin = rig.origin(5)
    with NameServer() as server:
        write = in_zone(server)
        write(origin.addresses[:2])
        text = (f'[pools.web]\nretries = {{ attempts = 1 }}\n[pools.web.discovery]\nsrv = "{NAME}"\ninterval = 0.1\n'
                f'resolver = ["{server.address}"]\n')
        balancer = rig.balancer(text, PROXY, workers=2)
        wait_for(balancer, set(origin.addresses[:2]))

        def in_between(number: int) -> None:
            if number == 1:
                server.forget()
                wait_until(lambda: "there is no such name" in balancer.log(), "the failure is told", SECONDS)

        change(balancer, origin, write, 3, in_between)
