"""What operators see and do by commands, on a real instance: here by shared memory, and elsewhere by the API."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import fetch
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until

POLICY = "class Mine: pass\n"  # it is found, and cannot be made


def events(balancer: Balancer) -> list[dict[str, str]]:
    done = balancer.by_hand("events", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_reload_tells_what_changed_and_whether_it_took(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(POLICY)
    origin = rig.origin(2)
    first, text = origin.addresses[0], pool_text(origin.addresses)
    balancer = rig.balancer(pool_text([first]), PROXY, workers=2, environ={"PYTHONPATH": str(tmp_path)})
    assert balancer.command("config", "diff", "--master", str(balancer.master)).returncode == 0
    balancer.config_file.write_text(text)
    wanted = f"server {origin.addresses[1]}: added"
    done = balancer.command("config", "diff", "--master", str(balancer.master))
    assert done.returncode == 1 and wanted in done.stdout
    before = balancer.workers()
    done = balancer.by_hand("reload", timeout=60)
    assert done.returncode == 0 and wanted in done.stdout and "2 new workers" in done.stdout, done
    assert not set(before) & set(balancer.workers())
    # A file with a mistake changes nothing; one that the workers cannot use changes the workers only.
    workers = balancer.workers()
    balancer.config_file.write_text(text + "unknown = 1\n")
    done = balancer.by_hand("reload", timeout=60)
    assert done.returncode == 1 and f"{balancer.config_file}:" in done.stderr and balancer.workers() == workers
    balancer.config_file.write_text(pool_text(origin.addresses, "mine:Mine"))
    done = balancer.by_hand("reload", timeout=60)
    assert done.returncode == 3 and "the configuration before stays in force" in done.stderr and "mine:Mine" in done.stderr, done
    assert fetch(balancer.address).status == 200
    told = [event for event in events(balancer) if event["kind"] in ("reload", "audit")]
    assert [event["kind"] for event in told] == ["reload", "audit", "reload", "audit", "reload"]


def test_events_tell_of_workers_and_servers(rig: Rig) -> None:
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=2)

    def wait_for_events(**wanted: int) -> None:
        wait_until(lambda: Counter(event["kind"].replace("-", "_") for event in events(balancer)).items() >= wanted.items(),
                   lambda: f"{wanted}: {events(balancer)}", 20, every=0.2)

    wait_for_events(worker_started=2)  # a worker has joined a moment before it says so
    victim = balancer.workers()[0]
    balancer.kill_worker(victim)
    wait_until(lambda: any(event["text"] == f"worker {victim} died" for event in events(balancer)),
               lambda: f"the death of {victim}: {events(balancer)}", 20, every=0.2)
    # The worker in its place and the controller start beside this.
    wait_for_events(worker_started=3, controller_started=1)
    assert balancer.by_hand("drain", origin.addresses[0]).returncode == 0
    kinds = [event["kind"] for event in events(balancer)]
    assert kinds[0] == "reload" and kinds[-1] == "admin"


def test_an_instance_elsewhere_is_seen_by_its_address(rig: Rig) -> None:
    origin, bind = rig.origin(2), f"{HOST}:{free_port()}"
    balancer = rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "{bind}"\n', PROXY, workers=2)
    at = ("--url", f"http://{bind}")
    wait_until(lambda: balancer.command("status", *at).returncode == 0, "it answers", 20, every=0.2)
    found = json.loads(balancer.command("status", "--json", *at).stdout)["instances"]
    assert found[0]["master"] == balancer.master and len(found[0]["pools"][0]["servers"]) == 2
    wait_until(lambda: "worker-started" in balancer.command("events", *at).stdout, "it tells of its workers", every=0.2)
