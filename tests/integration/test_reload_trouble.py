"""Reloads to a configuration that is good as such, and that this machine cannot put into force: what runs goes on."""
from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.balancer import FRONT_ENDS, GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.certificates import make_pair, needs_openssl
from tests.support.client import fetch
from tests.support.origin import Origin
from tests.support.place import HOST
from tests.support.rig import Rig
from tests.support.tls import SecureConnection, TLSServer, believing
from tests.support.waiting import wait_until

POLICY = """
class Mine:
    def __init__(self, rng, memory):
        pass
    def pick(self, candidates, request):
        return candidates[-1]
"""
BAD_POLICIES = {
    "missing": None, "needs-what-is-missing": "import nothing_of_this_name\n", "syntax": "syntax error\n", "raises": "1 / 0\n",
    "no-class": "class Other: pass\n", "cannot-be-made": POLICY.replace("pass", "raise RuntimeError('no')"),
}
CASES = [(front_end, [], "missing") for front_end in FRONT_ENDS]
CASES += [(PROXY, [], name) for name in BAD_POLICIES if name != "missing"] + [(GTHREAD, ["--preload"], "cannot-be-made")]


def goes_on_after(balancer: Balancer, text: str, message: str) -> None:
    """With new workers, by the configuration of before."""
    balancer.config_file.write_text(text)
    balancer.reload()
    wait_until(lambda: message in balancer.log(), balancer.log)
    assert [fetch(balancer.address).status for _ in range(6)] == [200] * 6
    assert processes.is_running(balancer.master)
    balancer.wait_until_idle()


def takes_over(balancer: Balancer, origin: Origin, text: str) -> None:
    """The next good configuration."""
    old = balancer.workers()
    balancer.config_file.write_text(text)
    balancer.reload()
    wait_until(lambda: not any(processes.is_running(pid) for pid in old), "the old workers have ended", 20)
    start = len(origin.arrivals)
    assert [fetch(balancer.address).status for _ in range(6)] == [200] * 6
    assert origin.shares(start) == [6, 0]


@pytest.mark.parametrize(("front_end", "extra", "name"), CASES, ids=str)
def test_a_policy_that_cannot_be_had(rig: Rig, tmp_path: Path, front_end: FrontEnd, extra: list[str], name: str) -> None:
    content = BAD_POLICIES[name]
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=2, extra=extra, environ={"PYTHONPATH": str(tmp_path)})
    goes_on_after(balancer, pool_text(origin.addresses, "mine:Mine"), "pools.web.policy")
    (tmp_path / "mine.py").write_text(POLICY)
    takes_over(balancer, origin, pool_text(origin.addresses[::-1], "mine:Mine"))


def test_more_servers_than_there_is_room_for(rig: Rig) -> None:
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), workers=2)
    many = [*origin.addresses, *(f"127.1.{number // 250}.{number % 250 + 1}:1" for number in range(300))]
    goes_on_after(balancer, pool_text(many), "room for 256 servers only; restart gunicorn to make more")
    takes_over(balancer, origin, pool_text(origin.addresses[:1]))


@pytest.mark.parametrize("kind", ["taken", "not-here", "no-folder", "no-name"])
def test_an_address_that_cannot_be_listened_on(rig: Rig, kind: str) -> None:
    origin = rig.origin(2)
    with socket.create_server((HOST, 0)) as taken, socket.create_server((HOST, 0)) as free:
        own = f"{HOST}:{free.getsockname()[1]}"
        free.close()
        bad, why = {
            "taken": (f"{HOST}:{taken.getsockname()[1]}", os.strerror(98)),
            "not-here": ("203.0.113.7:8080", os.strerror(99)),
            "no-folder": ("unix:/no/such/folder/x.sock", "/no/such/folder: no folder that may be written to"),
            "no-name": ("no-such-host.invalid:80", "Name or service not known"),
        }[kind]
        text = pool_text(origin.addresses)
        balancer = rig.balancer(f'[listen]\nbind = ["{own}"]\n' + text, workers=2, bind=None)
        assert balancer.address[1] == int(own.rpartition(":")[2])
        goes_on_after(balancer, f'[listen]\nbind = ["{own}", "{bad}"]\n' + text, f"listen.bind: {bad}: {why}")
        takes_over(balancer, origin, f'[listen]\nbind = ["{own}"]\n' + pool_text(origin.addresses[:1]))


def test_names_that_do_not_resolve_are_servers_that_are_down(rig: Rig) -> None:
    """Not at the start, nor at a reload: the other servers do the work."""
    origin = rig.origin(2)
    names = ["no-such-host.invalid:80", *origin.addresses]
    for front_end in (GTHREAD, PROXY):
        balancer = rig.balancer(pool_text(names, "round-robin"), front_end, workers=2)
        assert [fetch(balancer.address).status for _ in range(12)] == [200] * 12
        assert "no-such-host.invalid:80: the name does not resolve" in balancer.log()
        balancer.reload()
        assert [fetch(balancer.address).status for _ in range(12)] == [200] * 12


@needs_openssl
@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_certificates_and_keys_whose_files_are_gone(rig: Rig, tmp_path: Path, front_end: FrontEnd) -> None:
    """Workers have what their master has read: those that replace killed ones, and those of a reload."""
    default, named, ours = (make_pair(tmp_path, name, f"{name}.example") for name in ("default", "named", "ours"))
    with TLSServer(make_pair(tmp_path, "server", "server.example"), ours.certificate) as server:
        text = "".join(f'[[listen.certificates]]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\nhosts = ["{name}"]\n'
                       for name, pair in (("default.example", default), ("named.example", named)))
        more = (f'[pools.web.tls]\nca_file = "{tmp_path / "server.pem"}"\nserver_name = "server.example"\n'
                f'certificate = "{ours.certificate}"\nkey = "{ours.key}"')
        balancer = rig.balancer(text + pool_text([f"https://127.0.0.1:{server.port}"], more=more), front_end, workers=2,
                                secure=True)
        contexts = {"default.example": believing(default), "named.example": believing(named)}
        if front_end is not PROXY:
            del contexts["named.example"]  # gunicorn's own workers have one certificate

        def answers() -> list[int]:
            found = []
            for name, context in contexts.items():
                with SecureConnection(balancer.address, context, name) as connection:
                    found.append(connection.request("/", close=True).status)
            return found

        expected = [200] * len(contexts)
        assert answers() == expected
        for file in (*tmp_path.glob("*.pem"), *tmp_path.glob("*.key")):
            file.unlink()
        first = balancer.workers()
        for pid in first:
            balancer.kill_worker(pid)
        second = balancer.wait_for_workers(2, without=first)
        assert answers() == expected
        os.kill(balancer.master, signal.SIGHUP)
        balancer.wait_for_workers(2, without=second)
        assert "stays in force" in balancer.log()
        assert answers() == expected
