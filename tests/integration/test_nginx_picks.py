"""compatible = "nginx" and "nginx-ketama", held against a real nginx: the same server for the same key, and after a failure."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.policy import PolicyOptions
from tests.support.balancer import answers
from tests.support.client import Connection
from tests.support.place import HOST
from tests.support.ports import free_port, refusing_address
from tests.support.waiting import wait_until
from tests.unit.balance.candidates import Backend, new_policy

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
WEIGHTS = (1, 3, 1, 2, 1)
REFUSES = 3  # this one of them refuses connections
KEYS = 300

CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream plain {{ hash $request_uri; {servers} }}
  upstream ketama {{ hash $request_uri consistent; {servers} }}
  server {{ {origins} location / {{ return 200 $server_port; }} }}
  server {{
    listen {host}:{port};
    location /plain {{ proxy_pass http://plain; }}
    location /ketama {{ proxy_pass http://ketama; }}
  }}
}}
"""


class Nginx(NamedTuple):
    address: tuple[str, int]
    servers: list[Backend]  # as they stand in its configuration


@contextlib.contextmanager
def started(command: list[str], folder: Path, address: tuple[str, int]) -> Iterator[None]:
    with (folder / "out.log").open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        wait_until(lambda: answers(address, False, b""), lambda: (folder / "out.log").read_text(errors="replace"), 20)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    for parent in (folder, folder.parent):
        parent.chmod(0o755)  # nginx changes its user when root starts it
    with refusing_address() as refusing:
        ports = [free_port() for _ in WEIGHTS]
        names = [refusing if slot == REFUSES else f"{HOST}:{port}" for slot, port in enumerate(ports)]
        address = (HOST, free_port())
        (folder / "nginx.conf").write_text(CONFIGURATION.format(
            folder=folder, host=HOST, port=address[1],
            servers=" ".join(f"server {name} weight={weight} max_fails=0;" for name, weight in zip(names, WEIGHTS, strict=True)),
            origins=" ".join(f"listen {name};" for name in names if name != refusing)))
        with started([NGINX, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], folder, address):
            yield Nginx(address, [Backend(slot, weight, name=name)
                                  for slot, (name, weight) in enumerate(zip(names, WEIGHTS, strict=True))])


@pytest.mark.parametrize(("path", "policy", "compatible"), [
    ("/plain", "hash", "nginx"), ("/ketama", "consistent-hash", "nginx-ketama"),
])
def test_the_same_server_for_every_key(nginx: Nginx, path: str, policy: str, compatible: str) -> None:
    made = new_policy(policy, servers=nginx.servers, options=PolicyOptions(compatible=compatible))
    assert isinstance(made, KeyedPolicy)
    retried = 0
    with Connection(nginx.address) as connection:
        for number in range(KEYS):
            target = f"{path}/{number}?a={number * 7919:x}"
            found = connection.request(target).body.decode()
            order = made.order(target.encode())
            server = next(order)
            if server.slot == REFUSES:  # it was tried: nginx goes on to the next
                retried += 1
                server = next(other for other in order if other.slot != REFUSES)
            assert server.name.endswith(f":{found}"), target
    assert KEYS // 8 < retried < KEYS // 2  # its weight is 2 of 8
